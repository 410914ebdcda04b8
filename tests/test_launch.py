import dataclasses
import time

import pytest
import torch

from lib import launch
from lib.config import config_hash
from lib.errors import StudyError
from lib.paths import run_folder
from lib.runs import write_json
from lib.study import Study
from lib.studyfile import Stage


@pytest.fixture
def study(make_config):
    return Study("mine", "Title", "se_resnet18", "resnet18", tuple(make_config(seed=seed) for seed in range(3)))


def test_runs_take_gpus_in_turn_and_share_the_threads(monkeypatch):
    monkeypatch.setattr(launch, "cpu_cores", lambda: 8)
    slots = launch.slot_environments(3, ["0", "GPU-1"])
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["0", "GPU-1", "0"]
    assert {slot["OMP_NUM_THREADS"] for slot in slots} == {"2"}


def test_cpu_slots_leave_the_gpus_alone_and_have_a_thread_each(monkeypatch):
    monkeypatch.setattr(launch, "cpu_cores", lambda: 2)
    slots = launch.slot_environments(4, [])
    assert [set(slot) for slot in slots] == [{"OMP_NUM_THREADS", "MKL_NUM_THREADS"}] * 4
    assert slots[0]["OMP_NUM_THREADS"] == "1"


def fake_speeds(monkeypatch, totals):
    """Lets so many runs at once train this many images a second together; any other number does not fit."""

    def images_per_second(config, environments):
        if len(environments) not in totals:
            raise StudyError("out of memory")
        return [totals[len(environments)] / len(environments)] * len(environments)

    monkeypatch.setattr(launch.estimate, "images_per_second", images_per_second)


@pytest.mark.parametrize(
    ("totals", "runs_per_gpu"),
    [
        ({1: 1e6, 2: 1e6, 3: 1e6, 4: 1e6}, 4),  # training takes no time beside starting: the more the better
        ({1: 10, 2: 10, 3: 10, 4: 10}, 1),  # training is all, and sharing the GPU gains nothing
        ({1: 10, 2: 16, 3: 16.1, 4: 30}, 2),  # a third one would not be worth it
        ({1: 10, 2: 16}, 2),  # a third one does not fit into the memory
    ],
)
@pytest.mark.parametrize("gpus", [["0"], ["0", "1", "2"]])
def test_as_many_runs_share_a_gpu_as_finish_the_most_an_hour(totals, runs_per_gpu, gpus, monkeypatch, make_config):
    fake_speeds(monkeypatch, totals)
    slots, seconds_per_image = launch.choose_slots(make_config(epochs=100), gpus)
    assert len(slots) == runs_per_gpu * len(gpus)
    assert seconds_per_image == pytest.approx(runs_per_gpu / totals[runs_per_gpu])
    assert {slot["CUDA_VISIBLE_DEVICES"] for slot in slots} == set(gpus)


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 2), (64, 2)])
def test_runs_at_a_time_on_a_cpu(cores, expected, monkeypatch, make_config):
    fake_speeds(monkeypatch, {1: 10, 2: 20})
    monkeypatch.setattr(launch, "cpu_cores", lambda: cores)
    assert len(launch.choose_slots(make_config(), [])[0]) == expected


@pytest.mark.parametrize(("gpus", "on_one"), [([], 5), (["0", "1"], 3)])
def test_a_number_of_runs_that_the_user_gives_is_taken(gpus, on_one, monkeypatch, make_config):
    fake_speeds(monkeypatch, {on_one: 10})
    assert len(launch.choose_slots(make_config(), gpus, 5)[0]) == 5


def test_one_run_that_does_not_fit_is_an_error(monkeypatch, make_config):
    fake_speeds(monkeypatch, {})
    with pytest.raises(StudyError, match="out of memory"):
        launch.choose_slots(make_config(), ["0"])


def fake_gpu(monkeypatch, capability, count=2):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90", "compute_120"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA GeForce GTX 1080 Ti")


def test_a_gpu_that_torch_no_longer_serves_is_named_with_the_versions_that_do(monkeypatch):
    fake_gpu(monkeypatch, (6, 1))
    with pytest.raises(StudyError, match=r"GTX 1080 Ti is too old for torch .*torch==2\.7\.1"):
        launch.visible_gpus()


@pytest.mark.parametrize(
    ("named", "expected"), [(None, ["0", "1"]), ("3,5", ["3", "5"]), ("GPU-a,GPU-b", ["GPU-a", "GPU-b"])]
)
def test_gpus_keep_the_names_that_the_user_gave(named, expected, monkeypatch):
    fake_gpu(monkeypatch, (9, 0))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    if named:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert launch.visible_gpus() == expected


def test_missing_runs_keep_the_order_of_the_study(study):
    assert launch.missing_runs(study) == list(study.runs)


def test_the_time_limit_counts_what_a_run_needs(study):
    images = launch.estimate.images_to_train(study.runs[0])
    needed = launch.NOTEBOOK_SECONDS + launch.MARGIN * 0.01 * images
    for seconds_left, started in ((needed - 1, False), (needed + 5, True)):
        queue = launch.Queue(study, "mine", study.runs, [], 0.01, seconds_left)
        assert (time.monotonic() + queue._seconds(study.runs[0]) <= queue.deadline) == started


def finish(study, config, notebook=True):
    """Writes a complete run folder; returns the path of its notebook, which may be lost."""
    folder = run_folder(study.name, config.arm, config.seed)
    part = "val" if config.validation_images else "test"
    summary = dict.fromkeys(("data_source", "data_fingerprint", "precision"), "same") | {
        "config_hash": config_hash(config.to_dict()),
        f"{part}_accuracy": 0.5,
        f"{part}_loss": 1.0,
        "parameters": 1,
        "train_seconds": 1.0,
    }
    write_json(folder / "config.json", config.to_dict())
    write_json(folder / "summary.json", summary)
    if notebook:
        (folder / "notebook.ipynb").write_text("{}")
    return folder / "notebook.ipynb"


@pytest.fixture
def staged(make_config):
    """A study whose runs are of the tuning, of its arms, and of what is derived from them."""
    arms = ("resnet18", "se_resnet18")
    stages = (
        Stage("primary", arms, (0, 1), {"": {}}, "own"),
        Stage("cross", arms, (0,), {"": {}}, "other"),
        Stage("length", arms, (0,), {"short": {"epochs": 1}}, "own"),
    )
    trial = make_config(arm="tuning__resnet18", architecture="resnet18", seed=9, validation_images=20)
    names = [(arm, seed) for seed in (0, 1) for arm in arms]
    names += [(f"{arm}__{variant}", 0) for variant in ("other_winner", "short") for arm in arms]
    runs = [make_config(arm=arm, architecture=arm.split("__")[0], seed=seed) for arm, seed in names]
    return Study("mine", "Title", "se_resnet18", "resnet18", (trial, *runs), stages=stages)


def test_missing_runs_are_those_of_the_tuning_and_of_the_stages_alike(staged):
    for config in (staged.runs[0], staged.runs[3]):
        finish(staged, config)
    assert launch.missing_runs(staged) == [*staged.runs[1:3], *staged.runs[4:]]


def test_each_arm_of_the_study_file_shows_one_notebook(staged):
    paths = {(config.arm, config.seed): finish(staged, config) for config in staged.runs}
    arms = ("resnet18", "se_resnet18")
    assert launch.ensure_notebooks(staged, "mine", {}) == {arm: paths[arm, 0] for arm in arms}
    paths["resnet18", 0].unlink()
    assert launch.ensure_notebooks(staged, "mine", {})["resnet18"] == paths["resnet18", 1]


def test_only_lost_notebooks_of_arms_are_executed_again(staged, monkeypatch, capsys):
    started = []

    class Process:
        def __init__(self, study, study_name, config, environment):
            started.append((config.arm, config.seed))

        def wait(self):
            if started[-1][0] == "se_resnet18":
                raise StudyError("no kernel")

    monkeypatch.setattr(launch, "start_run", Process)
    paths = {(config.arm, config.seed): finish(staged, config, notebook=False) for config in staged.runs}
    assert launch.ensure_notebooks(staged, "mine", {}) == {"resnet18": paths["resnet18", 0]}
    assert started == [("resnet18", 0), ("se_resnet18", 0)]
    assert "no training notebook of se_resnet18" in capsys.readouterr().out


def test_arm_without_a_complete_run_shows_no_notebook(staged):
    for config in staged.runs:
        if config.arm not in ("resnet18", "se_resnet18"):
            finish(staged, config)
    assert launch.ensure_notebooks(staged, "mine", {}) == {}


def test_run_of_a_stage_starts_the_training_notebook_with_its_own_parameters(staged, monkeypatch):
    started = []
    monkeypatch.setattr(launch, "NotebookProcess", lambda *arguments: started.append(arguments))
    config = dataclasses.replace(staged.runs[0], seed=1000)
    launch.start_run(staged, "/a/mine.yaml", config, {"OMP_NUM_THREADS": "1"})
    ((template, output, log, parameters, environment),) = started
    assert (template.name, environment) == ("train.ipynb", {"OMP_NUM_THREADS": "1"})
    assert output == run_folder("mine", "tuning__resnet18", 1000) / "notebook.ipynb"
    assert log.name == "tuning__resnet18-seed-1000.log"
    assert parameters == {"study": "/a/mine.yaml", "arm": "tuning__resnet18", "seed": 1000}
