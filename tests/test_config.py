import dataclasses
import json
import math

import pytest

from lib.config import RANGES, RunConfig, config_hash, suggestion
from lib.errors import StudyError

NAMED = {"arm": "resnet18", "seed": 0, "architecture": "resnet18"}
# field: another valid value
OTHERS = {
    "arm": "other",
    "seed": 1,
    "architecture": "se_resnet18",
    "dataset": "digits",
    "width": 0.5,
    "reduction": 8,
    "epochs": 51,
    "batch_size": 64,
    "learning_rate": 0.2,
    "momentum": 0.8,
    "weight_decay": 1e-4,
    "warmup_epochs": 1.0,
    "label_smoothing": 0.1,
    "crop_padding": 2,
    "horizontal_flip": False,
    "validation_images": 5000,
    "train_fraction": 0.5,
    "probe_images": 500,
    "precision": "fp32",
}


def make(**changes):
    return RunConfig.from_dict({**NAMED, **changes})


def test_defaults_are_the_recipe_of_the_protocol():
    config = make()
    assert (config.dataset, config.width, config.reduction, config.epochs) == ("cifar10", 1.0, 16, 50)
    assert (config.learning_rate, config.momentum, config.weight_decay) == (0.1, 0.9, 5e-4)
    assert (config.validation_images, config.train_fraction, config.probe_images) == (0, 1.0, 2000)


def test_unknown_setting_gets_a_suggestion():
    with pytest.raises(StudyError, match="'learning_rat'.*did you mean 'learning_rate'"):
        make(learning_rat=0.1)


def test_unknown_setting_without_a_near_name_lists_all():
    with pytest.raises(StudyError, match="take one of architecture, arm, batch_size"):
        make(zzz=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", True),
        ("seed", 1.0),
        ("seed", "1"),
        ("epochs", 2.5),
        ("epochs", None),
        ("width", "1.0"),
        ("width", True),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("learning_rate", [0.1]),
        ("horizontal_flip", 1),
        ("horizontal_flip", "yes"),
        ("arm", 3),
        ("arm", None),
        ("dataset", ["cifar10"]),
    ],
)
def test_wrong_type_names_setting_and_value(name, value):
    with pytest.raises(StudyError) as caught:
        make(**{name: value})
    assert name in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("name", ["width", "learning_rate"])
def test_huge_integer_for_a_decimal_number_is_refused(name):
    with pytest.raises(StudyError, match=name):
        make(**{name: 10**400})


@pytest.mark.parametrize("name", RANGES)
def test_ends_of_each_range_are_accepted_and_what_lies_beyond_is_not(name):
    low, high = RANGES[name]
    step = 1 if type(OTHERS[name]) is int else 1e-9
    room = {"epochs": 10_000} if name == "warmup_epochs" else {"warmup_epochs": 0}
    for value in (low, high):
        assert getattr(make(**room | {name: value}), name) == value
    for value in (low - step, high + step * max(1, high)):
        with pytest.raises(StudyError, match=f"{name} = .*is out of range: take {low:g} to {high:g}"):
            make(**room | {name: value})


@pytest.mark.parametrize("name", ["dataset", "precision"])
def test_unknown_choice_lists_the_choices(name):
    with pytest.raises(StudyError, match=f"unknown {name} 'nothing': take one of .*(digits|fp32)"):
        make(**{name: "nothing"})


def test_warmup_longer_than_training_is_refused():
    with pytest.raises(StudyError, match="warmup_epochs = 5 is longer than epochs = 4"):
        make(epochs=4, warmup_epochs=5)


@pytest.mark.parametrize("arm", ["", "..", ".hidden", "a/b", "/tmp/arm", "two words"])
def test_arm_that_is_not_the_name_of_one_folder_is_refused(arm):
    with pytest.raises(StudyError, match="arm"):
        make(arm=arm)


def test_integers_become_decimal_numbers():
    config = make(learning_rate=1, warmup_epochs=2)
    assert config == make(learning_rate=1.0, warmup_epochs=2.0)
    assert type(config.learning_rate) is float


def test_integers_and_decimal_numbers_give_the_same_hash():
    assert config_hash(make(learning_rate=1).to_dict()) == config_hash(make(learning_rate=1.0).to_dict())


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().seed = 3


def test_config_survives_json():
    config = make(**OTHERS)
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_hash_does_not_depend_on_the_order_of_the_settings():
    values = make().to_dict()
    assert config_hash(dict(reversed(values.items()))) == config_hash(values)


def test_hash_is_the_same_in_every_version_and_process():
    assert config_hash({"seed": 1, "arm": "a"}) == "cbe3248b6b63a246"


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(RunConfig)])
def test_hash_changes_with_each_setting(field):
    assert config_hash(make(**{field: OTHERS[field]}).to_dict()) != config_hash(make().to_dict())


def test_suggestion_takes_names_that_are_not_text():
    assert suggestion(3, ["b", "a"]) == ": take one of a, b"
