import copy
import itertools
import re

import pytest
import torch
import yaml

from lib.errors import StudyError
from lib.models import ARCHITECTURES
from lib.paths import STUDIES
from lib.study import load_study, study_names

VALID = {
    "title": "Two arms",
    "primary": {"arm": "se_resnet18", "baseline": "resnet18"},
    "recipe": {"dataset": "digits", "width": 0.125, "epochs": 2, "warmup_epochs": 1},
    "arms": {"resnet18": {}, "se_resnet18": {"reduction": 4}},
    "stages": [{"name": "primary", "arms": ["resnet18", "se_resnet18"], "seeds": 2}],
}
REMOVED = object()


@pytest.fixture
def write(tmp_path):
    """Writes a study file, from text or a mapping, and returns its path."""

    def write(content):
        path = tmp_path / "mine.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
        return path

    return write


def changed(*keys, value):
    content = copy.deepcopy(VALID)
    place = content
    for key in keys[:-1]:
        place = place[key]
    if value is REMOVED:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    return content


def pairs(study):
    return [(config.arm, config.seed) for config in study.runs]


def test_the_three_studies_are_there():
    assert {"smoke", "laptop", "paper"} <= set(study_names())


@pytest.mark.parametrize("name", study_names())
def test_every_run_of_every_study_file_can_be_built(name):
    study = load_study(name)
    for config in {config.arm: config for config in study.runs}.values():
        with torch.device("meta"):
            ARCHITECTURES[config.architecture](config.width, config.reduction, 10)
    assert {study.arm, study.baseline} <= {config.arm for config in study.runs}


@pytest.mark.parametrize("name", study_names())
def test_every_arm_of_a_study_file_has_runs(name):
    arms = yaml.safe_load((STUDIES / f"{name}.yaml").read_text(encoding="utf-8"))["arms"]
    assert {config.arm for config in load_study(name).runs} == set(arms)


@pytest.mark.parametrize(("name", "seeds"), [("smoke", 2), ("laptop", 5), ("paper", 20)])
def test_primary_comparison_is_interleaved_within_each_seed(name, seeds):
    expected = [(arm, seed) for seed in range(seeds) for arm in ("resnet18", "se_resnet18")]
    assert pairs(load_study(name))[: 2 * seeds] == expected


@pytest.mark.parametrize(("name", "runs"), [("smoke", 4), ("laptop", 10)])
def test_small_studies_hold_only_the_primary_comparison(name, runs):
    assert len(load_study(name).runs) == runs


def test_paper_covers_every_architecture_with_the_seeds_of_the_protocol():
    study = load_study("paper")
    controls = {"se_skip_resnet18", "static_gate_resnet18", "half_scale_resnet18", "wide_resnet18"}
    assert {config.architecture for config in study.runs} == {"resnet18", "se_resnet18"} | controls
    seeds = {}
    for arm, seed in pairs(study):
        seeds.setdefault(arm, []).append(seed)
    controls = ["se_skip_resnet18", "static_gate_resnet18", "half_scale_resnet18", "wide_resnet18"]
    expected = {
        "resnet18": 20,
        "se_resnet18": 20,
        "se_resnet18_r4": 5,
        "se_resnet18_r32": 5,
        **dict.fromkeys(controls, 10),
    }
    assert seeds == {arm: list(range(count)) for arm, count in expected.items()}


@pytest.mark.parametrize("name", study_names())
def test_arms_of_one_study_differ_in_architecture_and_reduction_only(name):
    for one, other in itertools.pairwise(load_study(name).runs):
        differing = {key for key, value in one.to_dict().items() if other.to_dict()[key] != value}
        assert differing <= {"arm", "seed", "architecture", "reduction"}


def test_file_is_read_by_its_path(write):
    study = load_study(write(VALID))
    assert (study.name, study.title, study.arm, study.baseline) == ("mine", "Two arms", "se_resnet18", "resnet18")
    assert pairs(study) == [("resnet18", 0), ("se_resnet18", 0), ("resnet18", 1), ("se_resnet18", 1)]


def test_arm_overrides_the_recipe_and_names_its_architecture(write):
    arms = {"resnet18": None, "se_resnet18": {"architecture": "wide_resnet18", "epochs": 9}}
    plain, other = load_study(write(changed("arms", value=arms))).runs[:2]
    assert (plain.architecture, plain.epochs, plain.width) == ("resnet18", 2, 0.125)
    assert (other.arm, other.architecture, other.epochs, other.width) == ("se_resnet18", "wide_resnet18", 9, 0.125)


def test_runs_named_by_two_stages_are_made_once_in_the_first(write):
    stages = [
        {"name": "first", "arms": ["se_resnet18"], "seeds": [1]},
        {"name": "all", "arms": ["resnet18", "se_resnet18"], "seeds": 2},
    ]
    study = load_study(write(changed("stages", value=stages)))
    assert pairs(study) == [("se_resnet18", 1), ("resnet18", 0), ("se_resnet18", 0), ("resnet18", 1)]


def test_seeds_can_be_listed(write):
    study = load_study(write(changed("stages", 0, "seeds", value=[7, 3])))
    assert pairs(study) == [("resnet18", 7), ("se_resnet18", 7), ("resnet18", 3), ("se_resnet18", 3)]


def test_run_returns_the_config_of_an_arm_and_seed():
    config = load_study("smoke").run("se_resnet18", 1)
    assert (config.arm, config.seed) == ("se_resnet18", 1)


def test_run_suggests_an_arm():
    with pytest.raises(StudyError, match="'smoke' has no arm 'se_resnet81'.*did you mean 'se_resnet18'"):
        load_study("smoke").run("se_resnet81", 0)


def test_run_lists_the_seeds():
    with pytest.raises(StudyError, match=re.escape("no seed 2 for resnet18: take one of [0, 1]")):
        load_study("smoke").run("resnet18", 2)


@pytest.mark.parametrize("name", ["smok", "smoke.yml", "", None, "missing/smoke.yaml"])
def test_unknown_study_names_what_there_is(name):
    with pytest.raises(StudyError, match="unknown study .*smoke"):
        load_study(name)


def test_near_study_name_is_suggested():
    with pytest.raises(StudyError, match="did you mean 'paper'"):
        load_study("papre")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: [",
        "\tx: 1",
        "- 1",
        "just words",
        "a: *unknown",
        "!!python/object:os.x {}",
        "title: 2020-13-45",
    ],
)
def test_bad_yaml_names_the_file(write, text):
    with pytest.raises(StudyError, match=r"mine\.yaml"):
        load_study(write(text))


def test_file_that_is_not_text_names_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00title")
    with pytest.raises(StudyError, match=r"mine\.yaml .*YAML"):
        load_study(path)


@pytest.mark.parametrize("key", VALID)
def test_missing_entry_is_named(write, key):
    with pytest.raises(StudyError, match=rf"mine\.yaml: lacks the entry '{key}'"):
        load_study(write(changed(key, value=REMOVED)))


def test_unknown_entry_is_named(write):
    with pytest.raises(StudyError, match=r"mine\.yaml: has an unknown entry 'stage'"):
        load_study(write(changed("stage", value=[])))


@pytest.mark.parametrize(
    ("keys", "value", "named"),
    [
        (("recipe", "epoch"), 3, "'epoch'.*did you mean 'epochs'"),
        (("arms", "resnet18", "widht"), 3, "'widht'.*did you mean 'width'"),
        (("recipe", "epochs"), 0, "epochs = 0 is out of range"),
        (("recipe", "weight_decay"), "5e-4", "weight_decay = '5e-4'"),
        (("stages", 0, "arms"), ["resnet81"], "stage 'primary' names the arm 'resnet81'.*'resnet18'"),
        (("primary", "arm"), "se_resnet81", "primary.*'se_resnet81'"),
        (("primary", "baseline"), REMOVED, "primary.*baseline"),
        (("stages", 0, "seeds"), [0, 10_000], "seed = 10000 is out of range"),
    ],
)
def test_wrong_value_is_named_with_the_file(write, keys, value, named):
    with pytest.raises(StudyError, match=rf"mine\.yaml: .*{named}"):
        load_study(write(changed(*keys, value=value)))


HOSTILE = {
    ("title",): [None, 3, [], {}],
    ("primary",): [None, "se_resnet18", ["se_resnet18", "resnet18"], {}],
    ("primary", "arm"): [None, ["se_resnet18"], {"se_resnet18": 1}, 3],
    ("recipe",): [None, 3, "text", ["epochs"]],
    ("recipe", "width"): [None, "wide", [1], {}, True],
    ("arms",): [None, 3, "resnet18", ["resnet18", "se_resnet18"], {}],
    ("arms", "resnet18"): [3, "text", ["reduction"], True, 1.5],
    ("stages",): [None, 3, True, "text", [], {}, {"name": "primary", "arms": ["resnet18"], "seeds": 2}],
    ("stages", 0): [None, 3, "primary", ["resnet18"], {}, {1: 2, "name": 3}],
    ("stages", 0, "name"): [REMOVED],
    ("stages", 0, "arms"): [None, 3, True, "resnet18", [], {}, [["resnet18"]], [{"resnet18": 1}], [None]],
    ("stages", 0, "seeds"): [None, "3", 2.0, True, False, 0, -1, [], {}, ["0"], [0.0], [True], [None], [[0]]],
}


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        pytest.param(keys, value, id=f"{'.'.join(map(str, keys))}: {value!r}" if value is not REMOVED else "removed")
        for keys, values in HOSTILE.items()
        for value in values
    ],
)
def test_wrong_shape_is_an_error_that_names_the_file(write, keys, value):
    with pytest.raises(StudyError, match=r"mine\.yaml: "):
        load_study(write(changed(*keys, value=value)))


@pytest.mark.parametrize("place", [("recipe",), ("arms", "resnet18")])
@pytest.mark.parametrize(("name", "value"), [("seed", 1), ("arm", "other")])
def test_settings_that_stages_decide_cannot_be_overridden(write, place, name, value):
    with pytest.raises(StudyError, match=rf"mine\.yaml: .*{name}"):
        load_study(write(changed(*place, name, value=value)))


@pytest.mark.parametrize("arm", ["..", "a/b", 3])
def test_arm_that_cannot_name_a_folder_is_refused(write, arm):
    content = changed("arms", arm, value={"architecture": "resnet18"})
    content["stages"][0]["arms"].append(arm)
    with pytest.raises(StudyError, match=r"mine\.yaml: .*arm"):
        load_study(write(content))


def test_arms_on_two_data_sets_are_refused(write):
    with pytest.raises(StudyError, match=r"mine\.yaml: .*cifar10.*digits"):
        load_study(write(changed("arms", "resnet18", "dataset", value="cifar10")))


def test_arm_cannot_be_compared_with_itself(write):
    with pytest.raises(StudyError, match=r"mine\.yaml: .*primary"):
        load_study(write(changed("primary", "arm", value="resnet18")))


def test_primary_arm_without_runs_is_refused(write):
    with pytest.raises(StudyError, match=r"mine\.yaml: .*se_resnet18"):
        load_study(write(changed("stages", 0, "arms", value=["resnet18"])))


def test_arm_named_twice_is_refused(write):
    text = yaml.safe_dump(VALID).replace("  resnet18: {}", "  resnet18: {}\n  resnet18: {epochs: 9}")
    with pytest.raises(StudyError, match=r"mine\.yaml.*resnet18"):
        load_study(write(text))
