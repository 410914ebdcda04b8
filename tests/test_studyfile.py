import copy

import pytest
import yaml

from lib.errors import StudyError
from lib.studyfile import read_study_file, study_names

VALID = {
    "title": "Two arms",
    "primary": {"arm": "se_resnet18", "baseline": "resnet18"},
    "recipe": {"dataset": "digits", "width": 0.125, "epochs": 2, "warmup_epochs": 1},
    "arms": {"resnet18": {}, "se_resnet18": {"reduction": 4}},
    "tuning": {
        "arms": ["resnet18", "se_resnet18"],
        "seeds": [7],
        "validation_images": 100,
        "grid": {"learning_rate": [0.05, 0.1]},
    },
    "stages": [
        {"name": "primary", "arms": ["resnet18", "se_resnet18"], "seeds": 2},
        {"name": "cross", "arms": ["se_resnet18", "resnet18"], "seeds": [3, 1], "winner": "other"},
        {"name": "length", "arms": ["resnet18"], "seeds": 1, "variants": {"short": {"epochs": 1}, "": {}}},
    ],
}
REQUIRED = sorted(set(VALID) - {"tuning"})
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


def assert_one_line(caught):
    assert "\n" not in str(caught.value)


def test_the_three_studies_are_there():
    assert {"smoke", "laptop", "paper"} <= set(study_names())


@pytest.mark.parametrize("name", study_names())
def test_a_study_is_named_like_its_file(name):
    assert read_study_file(name).name == name


def test_file_is_read_by_its_path(write):
    file = read_study_file(write(VALID))
    assert (file.name, file.title, file.arm, file.baseline) == ("mine", "Two arms", "se_resnet18", "resnet18")
    assert (file.recipe, file.arms) == (VALID["recipe"], VALID["arms"])


def test_stages_are_read_with_what_they_leave_out(write):
    primary, cross, length = read_study_file(write(VALID)).stages
    assert (primary.name, primary.arms, primary.seeds) == ("primary", ("resnet18", "se_resnet18"), (0, 1))
    assert (primary.variants, primary.winner) == ({"": {}}, "own")
    assert (cross.arms, cross.seeds, cross.winner) == (("se_resnet18", "resnet18"), (3, 1), "other")
    assert (length.variants, length.winner) == ({"short": {"epochs": 1}, "": {}}, "own")


def test_tuning_is_read(write):
    tuning = read_study_file(write(VALID)).tuning
    assert (tuning.arms, tuning.seeds, tuning.validation_images) == (("resnet18", "se_resnet18"), (7,), 100)
    assert tuning.grid == {"learning_rate": [0.05, 0.1]}


def test_tuning_can_be_left_out(write):
    content = changed("tuning", value=REMOVED)
    del content["stages"][1]
    assert read_study_file(write(content)).tuning is None


@pytest.mark.parametrize("name", ["smok", "smoke.yml", "", None, "missing/smoke.yaml"])
def test_unknown_study_names_what_there_is(name):
    with pytest.raises(StudyError, match="unknown study .*smoke"):
        read_study_file(name)


def test_near_study_name_is_suggested():
    with pytest.raises(StudyError, match="did you mean 'paper'"):
        read_study_file("papre")


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
    with pytest.raises(StudyError, match=r"mine\.yaml") as caught:
        read_study_file(write(text))
    assert_one_line(caught)


def test_file_that_is_not_text_names_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00title")
    with pytest.raises(StudyError, match=r"mine\.yaml .*YAML"):
        read_study_file(path)


@pytest.mark.parametrize("key", REQUIRED)
def test_missing_entry_is_named(write, key):
    with pytest.raises(StudyError, match=rf"mine\.yaml: lacks the entry '{key}'"):
        read_study_file(write(changed(key, value=REMOVED)))


@pytest.mark.parametrize("key", ["stage", "tunning"])
def test_unknown_entry_is_named(write, key):
    with pytest.raises(StudyError, match=rf"mine\.yaml: has an unknown entry '{key}'"):
        read_study_file(write(changed(key, value=[])))


@pytest.mark.parametrize(
    ("keys", "value", "named"),
    [
        (("stages", 0, "arms"), ["resnet81"], "stage 'primary' names the arm 'resnet81'.*'resnet18'"),
        (("primary", "arm"), "se_resnet81", "primary.*'se_resnet81'"),
        (("primary", "baseline"), REMOVED, "primary.*baseline"),
        (("primary", "arm"), "resnet18", "primary compares resnet18 with itself"),
        (("stages", 2, "varaints"), {}, "stage 'length' has an unknown entry 'varaints'"),
        (("stages", 1, "winner"), "othr", "stage 'cross': winner must be one of own, other, not 'othr'"),
        (("stages", 1, "arms"), ["resnet18"], "stage 'cross' needs both tuned arms"),
        (("stages", 1, "arms"), ["resnet81", "resnet18"], "stage 'cross' names the arm 'resnet81'"),
        (("tuning",), REMOVED, "stage 'cross' takes the other arm's winner, but the file has no tuning"),
        (("tuning", "arms"), ["resnet81"], "tuning names the arm 'resnet81'.*'resnet18'"),
        (("tuning", "arms"), ["resnet18"], "stage 'cross' needs both tuned arms"),
        (("tuning", "seed"), [1], "tuning needs arms, grid, seeds, validation_images, not .*'seed'"),
        (("tuning", "grid"), REMOVED, "tuning needs arms, grid, seeds, validation_images, not"),
        (("tuning", "grid", "learning_rate"), 0.1, "tuning: learning_rate must be a list of numbers, not 0.1"),
        (("tuning", "grid", "learning_rate"), [0.1, 0.10], "tuning: learning_rate lists a value twice"),
        (("tuning", "grid", "weight_decay"), [0, 0.0], "tuning: weight_decay lists a value twice"),
        (("tuning", "grid", "precision"), ["bf16", "fp32"], "tuning: precision must be a list of numbers"),
        (("tuning", "grid", "validation_images"), [10, 20], "tuning: validation_images"),
    ],
)
def test_wrong_value_is_named_with_the_file(write, keys, value, named):
    with pytest.raises(StudyError, match=rf"mine\.yaml: .*{named}") as caught:
        read_study_file(write(changed(*keys, value=value)))
    assert_one_line(caught)


HOSTILE = {
    ("title",): [None, 3, [], {}],
    ("primary",): [None, "se_resnet18", ["se_resnet18", "resnet18"], {}],
    ("primary", "arm"): [None, ["se_resnet18"], {"se_resnet18": 1}, 3],
    ("recipe",): [None, 3, "text", ["epochs"]],
    ("arms",): [None, 3, "resnet18", ["resnet18", "se_resnet18"], {}],
    ("arms", 3): [{}],
    ("arms", None): [{}],
    ("arms", "resnet18"): [3, "text", ["reduction"], True, 1.5],
    ("stages",): [None, 3, True, "text", [], {}, {"name": "primary", "arms": ["resnet18"], "seeds": 2}],
    ("stages", 0): [None, 3, "primary", ["resnet18"], {}, {1: 2, "name": 3}],
    ("stages", 0, "name"): [REMOVED],
    ("stages", 0, "arms"): [None, 3, True, "resnet18", [], {}, [["resnet18"]], [{"resnet18": 1}], [None]],
    ("stages", 0, "seeds"): [None, "3", 2.0, True, False, 0, -1, [], {}, ["0"], [0.0], [True], [None], [[0]]],
    ("stages", 1, "arms"): [None, 3, "resnet18", [["resnet18"], 3], ["resnet18", 3], ["resnet18", "resnet18"]],
    ("stages", 1, "winner"): [None, 3, True, ["other"], {"other": 1}],
    ("stages", 2, "variants"): [None, 3, "short", ["short"], {}, {12: {}}, {None: {}}, {"short": None}, {"short": 3}],
    ("tuning",): [None, 3, "text", [], {}, {1: 2}],
    ("tuning", "arms"): [None, 3, "resnet18", [], {}, [["resnet18"]], [None]],
    ("tuning", "seeds"): [None, "3", 2.0, True, 0, [], {}, ["0"], [True]],
    ("tuning", "validation_images"): [None, "100", 100.0, True, 0, -1, [100]],
    ("tuning", "grid"): [None, 3, "learning_rate", ["learning_rate"], {"epochs": None}, {"epochs": 3}, {"epochs": []}],
    ("tuning", "grid", "learning_rate"): [None, {}, "0.1", [None], ["0.1"], [[0.1]], [{}]],
}


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        pytest.param(
            keys, value, id=f"{'.'.join(map(str, keys))}: {value!r}" if value is not REMOVED else "name removed"
        )
        for keys, values in HOSTILE.items()
        for value in values
    ],
)
def test_wrong_shape_is_an_error_that_names_the_file(write, keys, value):
    with pytest.raises(StudyError, match=r"mine\.yaml: ") as caught:
        read_study_file(write(changed(*keys, value=value)))
    assert_one_line(caught)


@pytest.mark.parametrize(
    "place", [("recipe",), ("arms", "resnet18"), ("stages", 2, "variants", "short"), ("tuning", "grid")]
)
@pytest.mark.parametrize(("name", "value"), [("seed", [1]), ("arm", ["other"])])
def test_settings_that_stages_decide_cannot_be_overridden(write, place, name, value):
    with pytest.raises(StudyError, match=rf"mine\.yaml: .*{name}"):
        read_study_file(write(changed(*place, name, value=value)))


def test_primary_arm_without_runs_is_refused(write):
    content = changed("stages", value=[{"name": "primary", "arms": ["resnet18"], "seeds": 2}])
    with pytest.raises(StudyError, match=r"mine\.yaml: primary.arm must name an arm that has runs, not 'se_resnet18'"):
        read_study_file(write(content))


def test_tuning_without_the_primary_arm_is_refused(write):
    content = changed("tuning", "arms", value=["resnet18"])
    del content["stages"][1]
    with pytest.raises(StudyError, match=r"mine\.yaml: tuning: arms must name both arms of the primary comparison"):
        read_study_file(write(content))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  resnet18: {}", "  resnet18: {}\n  resnet18: {epochs: 9}"),
        ("    short:", "    short: {epochs: 9}\n    short:"),
        ("title:", "title: One\ntitle:"),
    ],
)
def test_name_that_stands_twice_is_refused(write, old, new):
    text = yaml.safe_dump(VALID)
    assert old in text
    with pytest.raises(StudyError, match=r"mine\.yaml.*stands twice"):
        read_study_file(write(text.replace(old, new, 1)))
