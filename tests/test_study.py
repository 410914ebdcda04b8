import copy
import hashlib
import itertools
import re
from collections import Counter

import pytest
import torch
import yaml

from lib.batches import crop_and_flip, pad, plan_epoch
from lib.config import config_hash
from lib.errors import StudyError
from lib.models import ARCHITECTURES, build_model
from lib.paths import STUDIES, run_folder
from lib.runs import write_json
from lib.study import load_study
from lib.studyfile import study_names

VALID = {
    "title": "Two arms",
    "primary": {"arm": "se_resnet18", "baseline": "resnet18"},
    "recipe": {"dataset": "digits", "width": 0.125, "epochs": 2, "warmup_epochs": 1},
    "arms": {"resnet18": {}, "se_resnet18": {"reduction": 4}},
    "stages": [{"name": "primary", "arms": ["resnet18", "se_resnet18"], "seeds": 2}],
}
BOTH = ["resnet18", "se_resnet18"]
TUNED = VALID | {
    "arms": {
        "resnet18": {},
        "se_resnet18": {"reduction": 4},
        "se_r2": {"architecture": "se_resnet18", "reduction": 2},
        "static_gate_resnet18": {},
    },
    "tuning": {
        "arms": BOTH,
        "seeds": [7, 8],
        "validation_images": 100,
        "grid": {"learning_rate": [0.05, 0.1], "weight_decay": [0.0005, 0.001]},
    },
    "stages": [
        {"name": "primary", "arms": BOTH, "seeds": 2},
        {"name": "others", "arms": ["static_gate_resnet18", "se_r2"], "seeds": 1},
        {"name": "cross", "arms": BOTH, "seeds": 1, "winner": "other"},
        {"name": "short", "arms": BOTH, "seeds": [1], "variants": {"short": {"epochs": 1}, "fast": {"epochs": 1}}},
    ],
}
STAGED = [
    *[(arm, seed) for seed in (0, 1) for arm in BOTH],
    *[("static_gate_resnet18", 0), ("se_r2", 0), ("resnet18__other_winner", 0), ("se_resnet18__other_winner", 0)],
    *[("resnet18__short", 1), ("se_resnet18__short", 1), ("resnet18__fast", 1), ("se_resnet18__fast", 1)],
]
LOW_HIGH, HIGH_LOW = ({"learning_rate": r, "weight_decay": d} for r, d in ((0.05, 0.001), (0.1, 0.0005)))


@pytest.fixture
def write(tmp_path):
    """Writes a study file and returns its path."""

    def write(content):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return path

    return write


def changed(*keys, value, content=VALID):
    content = copy.deepcopy(content)
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return content


def pairs(study):
    return [(config.arm, config.seed) for config in study.runs]


def planned(study):
    """All configs of a study but those of its tuning, whether they wait for it or not."""
    return [config for config in (*study.runs, *study.awaiting) if not config.validation_images]


def trials(study):
    return [config for config in study.runs if config.validation_images]


def finish(study, config, val_accuracy):
    """Writes what a run of the tuning leaves that later steps read."""
    folder = run_folder(study.name, config.arm, config.seed)
    summary = {
        "config_hash": config_hash(config.to_dict()),
        "data_source": "digits",
        "data_fingerprint": "f" * 64,
        "precision": "fp32",
        "val_accuracy": val_accuracy,
        "val_loss": 1.0,
        "parameters": 1000,
        "train_seconds": 1.0,
    }
    write_json(folder / "config.json", config.to_dict())
    write_json(folder / "summary.json", summary)


def tuned(name, **best):
    """The study after a tuning that each architecture wins with the settings given as {setting: value}."""
    study = load_study(name)
    for config in trials(study):
        wins = all(getattr(config, key) == value for key, value in best[config.architecture].items())
        finish(study, config, 0.9 if wins else 0.8)
    return load_study(name)


@pytest.mark.parametrize("name", study_names())
def test_every_run_of_every_study_file_can_be_built(name):
    study = load_study(name)
    for config in {config.arm: config for config in (*study.runs, *study.awaiting)}.values():
        with torch.device("meta"):
            ARCHITECTURES[config.architecture](config.width, config.reduction, 10)
    assert {study.arm, study.baseline} <= {config.arm for config in planned(study)}


@pytest.mark.parametrize("name", study_names())
def test_every_arm_of_a_study_file_has_runs(name):
    arms = yaml.safe_load((STUDIES / f"{name}.yaml").read_text(encoding="utf-8"))["arms"]
    assert {config.arm for config in planned(load_study(name)) if "__" not in config.arm} == set(arms)


@pytest.mark.parametrize(("name", "seeds"), [("smoke", 2), ("laptop", 10), ("paper", 20)])
def test_primary_comparison_is_interleaved_within_each_seed(name, seeds):
    expected = [(arm, seed) for seed in range(seeds) for arm in BOTH]
    first = planned(load_study(name))[: 2 * seeds]
    assert [(config.arm, config.seed) for config in first] == expected


def test_smoke_holds_only_the_primary_comparison():
    study = load_study("smoke")
    assert (len(study.runs), study.awaiting, study.tuning, study.tuning_scores) == (4, (), None, None)


@pytest.mark.parametrize("name", study_names())
def test_arms_of_one_study_differ_in_architecture_and_reduction_only(name):
    arms = [config for config in planned(load_study(name)) if "__" not in config.arm]
    for one, other in itertools.pairwise(arms):
        differing = {key for key, value in one.to_dict().items() if other.to_dict()[key] != value}
        assert differing <= {"arm", "seed", "architecture", "reduction"}


def test_laptop_is_the_whole_of_paper_in_small():
    laptop, paper = load_study("laptop"), load_study("paper")
    assert [stage.name for stage in laptop.stages] == [stage.name for stage in paper.stages]
    architectures = [{config.architecture for config in planned(study)} for study in (laptop, paper)]
    assert architectures[0] == architectures[1]
    assert {config.width for config in planned(laptop)} == {0.125}
    assert len({config.arm for config in planned(laptop) if "__" not in config.arm}) == 10


WINNERS = {
    "resnet18": {"learning_rate": 0.2, "weight_decay": 0.0005},
    "se_resnet18": {"learning_rate": 0.05, "weight_decay": 0.001},
}
CONTROLS = ["se_skip_resnet18", "static_gate_resnet18", "half_scale_resnet18", "wide_resnet18"]
PLACEMENT = ["static_gate_skip_resnet18", "half_scale_skip_resnet18"]
LENGTHS = {"12_epochs": 12, "25_epochs": 25, "100_epochs": 100}
FRACTIONS = {"half_of_data": 0.5, "quarter_of_data": 0.25, "tenth_of_data": 0.1}


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """The study `paper` after a tuning that the two primary arms win with different settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_OUTPUTS", str(tmp_path_factory.mktemp("outputs")))
        return tuned("paper", **WINNERS)


def test_tuning_of_paper_is_the_preregistered_one():
    runs = trials(load_study("paper"))
    assert len(runs) == 24
    cells = [
        (config.architecture, config.learning_rate, config.weight_decay, config.seed)
        for config in runs
        if (config.epochs, config.warmup_epochs, config.train_fraction, config.validation_images) == (50, 5, 1, 5000)
    ]
    assert Counter(cells) == Counter(itertools.product(BOTH, (0.05, 0.1, 0.2), (0.0005, 0.001), (1000, 1001)))


def test_runs_of_paper_are_as_many_as_preregistered(paper):
    seeds = {}
    for config in planned(paper):
        seeds.setdefault(config.arm, []).append(config.seed)
    expected = dict.fromkeys(BOTH, 20) | dict.fromkeys(CONTROLS, 10) | dict.fromkeys(PLACEMENT, 5)
    expected |= {f"{arm}__other_winner": 10 for arm in BOTH} | {"se_resnet18_r4": 5, "se_resnet18_r32": 5}
    expected |= {f"{arm}__{variant}": 5 for variant in LENGTHS | FRACTIONS for arm in BOTH}
    assert seeds == {arm: list(range(count)) for arm, count in expected.items()}
    assert len(paper.runs) == 24 + 180
    assert paper.awaiting == ()


def test_stages_of_paper_come_in_the_preregistered_order(paper):
    firsts = list(dict.fromkeys(config.arm for config in paper.runs))
    assert firsts[:12] == [config.arm for config in trials(paper)[:12]]
    assert firsts[12:] == [
        *BOTH,
        *(f"{arm}__other_winner" for arm in BOTH),
        *CONTROLS,
        *PLACEMENT,
        *("se_resnet18_r4", "se_resnet18_r32"),
        *(f"{arm}__{variant}" for variant in LENGTHS | FRACTIONS for arm in BOTH),
    ]


def test_seeds_of_the_tuning_of_paper_are_used_nowhere_else(paper):
    assert not {config.seed for config in trials(paper)} & {config.seed for config in planned(paper)}


def test_arms_of_paper_take_the_preregistered_winners(paper):
    own = dict.fromkeys(["resnet18", *CONTROLS, *PLACEMENT, "se_resnet18__other_winner"], WINNERS["resnet18"])
    own |= dict.fromkeys(
        ["se_resnet18", "se_resnet18_r4", "se_resnet18_r32", "resnet18__other_winner"], WINNERS["se_resnet18"]
    )
    own |= {f"{arm}__{variant}": WINNERS[arm] for arm in BOTH for variant in LENGTHS | FRACTIONS}
    for config in planned(paper):
        settings = {"learning_rate": config.learning_rate, "weight_decay": config.weight_decay}
        assert settings == own[config.arm], config.arm


def test_variants_of_paper_change_what_their_names_say(paper):
    for config in planned(paper):
        variant = config.arm.split("__")[-1]
        assert config.epochs == LENGTHS.get(variant) or variant in FRACTIONS or config.epochs == 50
        assert config.train_fraction == FRACTIONS.get(variant, 1)
        assert config.warmup_epochs == pytest.approx(0.1 * config.epochs)


@pytest.mark.parametrize("name", ["laptop", "paper"])
def test_fewer_images_are_trained_for_as_many_updates(name):
    study = load_study(name)
    updates = {
        config.arm: config.epochs * (round(50_000 * config.train_fraction) // config.batch_size)
        for config in planned(study)
    }
    (stage,) = (stage for stage in study.stages if stage.name == "data")
    for arm, variant in itertools.product(stage.arms, stage.variants):
        assert updates[f"{arm}__{variant}"] == pytest.approx(updates[study.baseline], rel=0.01)


def plain_arms(study, seed):
    """The config of each arm of the study file with this seed."""
    return {config.arm: config for config in planned(study) if config.seed == seed and "__" not in config.arm}


def test_all_arms_of_paper_start_with_equal_shared_weights(paper):
    models = {arm: build_model(config, 10) for arm, config in plain_arms(paper, seed=3).items()}
    assert len(models) == 10
    baseline = models["resnet18"].state_dict()
    for arm, model in models.items():
        values = model.state_dict()
        wide = ("blocks.6", "blocks.7", "fc") if arm == "wide_resnet18" else ()  # layers of other shapes
        assert all(torch.equal(value, values[name]) for name, value in baseline.items() if not name.startswith(wide))
    gates = [models[arm].state_dict() for arm in ("se_resnet18", "se_skip_resnet18")]
    assert all(torch.equal(value, gates[1][name]) for name, value in gates[0].items())


def test_all_arms_of_paper_see_equal_batches(paper, dataset):
    padded = pad(torch.from_numpy(dataset.train_images), 4)
    digests = {}
    for arm, config in plain_arms(paper, seed=3).items():
        plan = plan_epoch(config, 1, 50_000)
        digest = hashlib.sha256(plan.order.numpy().tobytes())
        for step in (0, 200, 389):
            order, top, left, flip = plan.step(step)
            digest.update(crop_and_flip(padded, order % len(padded), top, left, flip).numpy().tobytes())
        digests[arm] = digest.hexdigest()
    assert len(digests) == 10 and len(set(digests.values())) == 1
    other = plan_epoch(plain_arms(paper, seed=4)["resnet18"], 1, 50_000)
    assert not torch.equal(other.order, plan.order)


def test_arm_overrides_the_recipe_and_names_its_architecture(write):
    arms = {"resnet18": None, "se_resnet18": {"architecture": "wide_resnet18", "epochs": 9}}
    plain, other = load_study(write(changed("arms", value=arms))).runs[:2]
    assert (plain.architecture, plain.epochs, plain.width) == ("resnet18", 2, 0.125)
    assert (other.arm, other.architecture, other.epochs, other.width) == ("se_resnet18", "wide_resnet18", 9, 0.125)


def test_study_of_a_file_has_its_name_and_runs(write):
    study = load_study(write(VALID))
    assert (study.name, study.title, study.arm, study.baseline) == ("mine", "Two arms", "se_resnet18", "resnet18")
    assert pairs(study) == [("resnet18", 0), ("se_resnet18", 0), ("resnet18", 1), ("se_resnet18", 1)]


def test_runs_named_by_two_stages_are_made_once_in_the_first(write):
    stages = [
        {"name": "first", "arms": ["se_resnet18"], "seeds": [1]},
        {"name": "all", "arms": ["resnet18", "se_resnet18"], "seeds": 2},
    ]
    study = load_study(write(changed("stages", value=stages)))
    assert pairs(study) == [("se_resnet18", 1), ("resnet18", 0), ("se_resnet18", 0), ("resnet18", 1)]


def test_runs_of_one_name_with_different_settings_are_refused(write):
    stages = [
        {"name": name, "arms": BOTH, "seeds": 1, "variants": {"short": {"epochs": epochs}}}
        for name, epochs in (("one", 1), ("other", 3))
    ]
    with pytest.raises(StudyError, match=r"mine\.yaml: two stages name resnet18__short seed 0 with different settings"):
        load_study(write(changed("stages", value=stages)))


def test_seeds_can_be_listed(write):
    study = load_study(write(changed("stages", 0, "seeds", value=[7, 3])))
    assert pairs(study) == [("resnet18", 7), ("se_resnet18", 7), ("resnet18", 3), ("se_resnet18", 3)]


def test_variants_change_settings_and_names(write):
    variants = {"": {}, "long": {"epochs": 4}, "bare": {"crop_padding": 0, "horizontal_flip": False}}
    study = load_study(write(changed("stages", 0, "variants", value=variants)))
    names = ["resnet18", "se_resnet18", "resnet18__long", "se_resnet18__long", "resnet18__bare", "se_resnet18__bare"]
    assert pairs(study) == [(name, seed) for seed in (0, 1) for name in names]
    settings = {config.arm: (config.epochs, config.crop_padding, config.horizontal_flip) for config in study.runs}
    assert settings == dict(zip(names, 2 * [(2, 4, True)] + 2 * [(4, 4, True)] + 2 * [(2, 0, False)], strict=True))


def test_every_cell_and_seed_is_tuned_once_for_each_tuned_arm(write):
    study = load_study(write(TUNED))
    settings = [
        (config.architecture, config.learning_rate, config.weight_decay, config.seed, config.validation_images)
        for config in study.runs
    ]
    assert Counter(settings) == Counter(itertools.product(BOTH, (0.05, 0.1), (0.0005, 0.001), (7, 8), [100]))
    assert len(set(pairs(study))) == len(settings) == 16
    reductions = {(config.architecture, config.reduction) for config in study.runs}
    assert reductions == {("resnet18", 16), ("se_resnet18", 4)}


def test_tuning_runs_of_both_arms_are_neighbours_with_equal_settings(write):
    runs = load_study(write(TUNED)).runs
    for one, other in zip(runs[::2], runs[1::2], strict=True):
        differing = {key for key, value in one.to_dict().items() if other.to_dict()[key] != value}
        assert differing == {"arm", "architecture", "reduction"}


@pytest.mark.parametrize("finished", [0, 1, 15])
def test_nothing_is_staged_before_the_tuning_is_complete(write, finished):
    path = write(TUNED)
    study = load_study(path)
    for config in study.runs[:finished]:
        finish(study, config, 0.5)
    study = load_study(path)
    assert [(config.arm, config.seed) for config in study.awaiting] == STAGED
    assert (study.winners, len(study.tuning_scores), len(study.runs)) == (None, finished, 16)
    assert all(config.validation_images for config in study.runs)


def test_run_that_waits_for_the_tuning_says_what_to_do(write):
    study = load_study(write(TUNED))
    with pytest.raises(StudyError, match=r"se_r2 waits for the tuning .*\./run_all\.sh --study mine"):
        study.run("se_r2", 0)
    with pytest.raises(StudyError, match=re.escape("no seed 5 for se_r2: take one of [0]")):
        study.run("se_r2", 5)
    label = "tuning__resnet18__learning_rate_0.05__weight_decay_0.001"
    config = study.run(label, 8)
    assert (config.arm, config.seed, config.learning_rate, config.weight_decay) == (label, 8, 0.05, 0.001)


def settings_of(study):
    return {
        config.arm: {"learning_rate": config.learning_rate, "weight_decay": config.weight_decay}
        for config in planned(study)
    }


def test_every_arm_takes_its_winner_when_the_tuning_is_complete(write):
    study = tuned(write(TUNED), resnet18=LOW_HIGH, se_resnet18=HIGH_LOW)
    assert study.winners == {"resnet18": LOW_HIGH, "se_resnet18": HIGH_LOW}
    assert pairs(study)[16:] == STAGED and study.awaiting == ()
    assert len(study.tuning_scores) == 16
    assert settings_of(study) == {
        "resnet18": LOW_HIGH,
        "se_resnet18": HIGH_LOW,
        "static_gate_resnet18": LOW_HIGH,  # like the baseline
        "se_r2": HIGH_LOW,  # like the tuned arm of its architecture
        "resnet18__other_winner": HIGH_LOW,
        "se_resnet18__other_winner": LOW_HIGH,
        **dict.fromkeys(["resnet18__short", "resnet18__fast"], LOW_HIGH),
        **dict.fromkeys(["se_resnet18__short", "se_resnet18__fast"], HIGH_LOW),
    }
    assert study.run("se_r2", 0).learning_rate == 0.1


def test_winners_of_an_architecture_that_the_recipe_sets_for_all(write):
    content = changed("recipe", "architecture", value="se_resnet18", content=TUNED)
    content["arms"] = {"resnet18": {"architecture": "resnet18"}, "se_resnet18": {}, "se_r2": {"reduction": 2}}
    content["arms"]["static_gate_resnet18"] = {"architecture": "static_gate_resnet18"}
    study = tuned(write(content), resnet18=LOW_HIGH, se_resnet18=HIGH_LOW)
    settings = settings_of(study)
    assert (settings["se_r2"], settings["static_gate_resnet18"]) == (HIGH_LOW, LOW_HIGH)


def test_nothing_is_crossed_when_both_arms_win_with_the_same_settings(write):
    study = tuned(write(TUNED), resnet18=LOW_HIGH, se_resnet18=LOW_HIGH)
    assert pairs(study)[16:] == [(arm, seed) for arm, seed in STAGED if "other_winner" not in arm]


def test_setting_of_a_variant_goes_before_that_of_the_winner(write):
    variants = {"fast": {"learning_rate": 0.4}}
    study = tuned(
        write(changed("stages", 3, "variants", value=variants, content=TUNED)), resnet18=LOW_HIGH, se_resnet18=HIGH_LOW
    )
    config = study.run("resnet18__fast", 1)
    assert (config.learning_rate, config.weight_decay) == (0.4, 0.001)


def test_default_of_the_tuning_is_the_recipe(write):
    path = write(TUNED)
    study = load_study(path)
    for config in study.runs:
        better = (config.learning_rate, config.weight_decay) == (0.05, 0.001)
        finish(study, config, 0.5 + 0.01 * better + 0.1 * (config.seed == 8))  # two seeds 0.1 apart, a lead of 0.01
    assert load_study(path).winners == dict.fromkeys(BOTH, {"learning_rate": 0.1, "weight_decay": 0.0005})


def test_tuning_runs_of_other_settings_are_not_taken_for_those_of_the_file(write):
    tuned(write(TUNED), resnet18=LOW_HIGH, se_resnet18=HIGH_LOW)
    with pytest.raises(StudyError, match="epochs 2 there, 3 here"):
        load_study(write(changed("recipe", "epochs", value=3, content=TUNED)))


def test_run_returns_the_config_of_an_arm_and_seed():
    config = load_study("smoke").run("se_resnet18", 1)
    assert (config.arm, config.seed) == ("se_resnet18", 1)


def test_run_suggests_an_arm():
    with pytest.raises(StudyError, match="'smoke' has no arm 'se_resnet81'.*did you mean 'se_resnet18'"):
        load_study("smoke").run("se_resnet81", 0)


def test_run_lists_the_seeds():
    with pytest.raises(StudyError, match=re.escape("no seed 2 for resnet18: take one of [0, 1]")):
        load_study("smoke").run("resnet18", 2)


@pytest.mark.parametrize(
    ("keys", "value", "named"),
    [
        (("recipe", "epoch"), 3, "'epoch'.*did you mean 'epochs'"),
        (("arms", "resnet18", "widht"), 3, "'widht'.*did you mean 'width'"),
        (("recipe", "epochs"), 0, "epochs = 0 is out of range"),
        (("recipe", "weight_decay"), "5e-4", "weight_decay = '5e-4'"),
        (("stages", 0, "seeds"), [0, 10_000], "seed = 10000 is out of range"),
        (("stages", 3, "variants", "short"), {"epcohs": 1}, "'epcohs'.*did you mean 'epochs'"),
        (("stages", 3, "variants", "short"), {"train_fraction": 2.0}, "train_fraction = 2.0 is out of range"),
        (("stages", 3, "variants", "a/b"), {"epochs": 1}, "arm 'resnet18__a/b' cannot name a folder"),
        (("tuning", "grid", "learning_rte"), [0.1, 0.2], "'learning_rte'.*did you mean 'learning_rate'"),
        (("tuning", "grid", "learning_rate"), [0.1, 1000], "learning_rate = 1000.0 is out of range"),
        (("tuning", "grid", "epochs"), [1, 2.5], "epochs = 2.5 is not a valid int"),
        (("tuning", "seeds"), [10_000], "seed = 10000 is out of range"),
        (("tuning", "validation_images"), 49_001, "validation_images = 49001 is out of range"),
        *[(("recipe", "width"), value, "width = ") for value in (None, "wide", [1], {}, True)],
    ],
)
def test_wrong_value_is_named_with_the_file(write, keys, value, named):
    with pytest.raises(StudyError, match=rf"mine\.yaml: .*{named}") as caught:
        load_study(write(changed(*keys, value=value, content=TUNED)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arm", ["..", "a/b", 3])
def test_arm_that_cannot_name_a_folder_is_refused(write, arm):
    content = changed("arms", arm, value={"architecture": "resnet18"})
    content["stages"][0]["arms"].append(arm)
    with pytest.raises(StudyError, match=r"mine\.yaml: .*arm"):
        load_study(write(content))


def test_arms_on_two_data_sets_are_refused(write):
    with pytest.raises(StudyError, match=r"mine\.yaml: .*cifar10.*digits"):
        load_study(write(changed("arms", "resnet18", "dataset", value="cifar10")))
