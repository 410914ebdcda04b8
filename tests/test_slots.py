import pytest
import torch

from lib import slots
from lib.errors import StudyError


def test_runs_take_gpus_in_turn_and_share_the_threads(monkeypatch):
    monkeypatch.setattr(slots, "cpu_cores", lambda: 8)
    found = slots.slot_environments(3, ["0", "GPU-1"])
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in found] == ["0", "GPU-1", "0"]
    assert {slot["OMP_NUM_THREADS"] for slot in found} == {"2"}


def test_cpu_slots_leave_the_gpus_alone_and_have_a_thread_each(monkeypatch):
    monkeypatch.setattr(slots, "cpu_cores", lambda: 2)
    found = slots.slot_environments(4, [])
    assert [set(slot) for slot in found] == [{"OMP_NUM_THREADS", "MKL_NUM_THREADS"}] * 4
    assert found[0]["OMP_NUM_THREADS"] == "1"


def fake_speeds(monkeypatch, totals):
    """Lets so many runs at once train this many images a second together; any other number does not fit."""

    def images_per_second(config, environments):
        if len(environments) not in totals:
            raise StudyError("out of memory")
        return [totals[len(environments)] / len(environments)] * len(environments)

    monkeypatch.setattr(slots.estimate, "images_per_second", images_per_second)


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
    found, seconds_per_image = slots.choose_slots(make_config(epochs=100), gpus)
    assert len(found) == runs_per_gpu * len(gpus)
    assert seconds_per_image == pytest.approx(runs_per_gpu / totals[runs_per_gpu])
    assert {slot["CUDA_VISIBLE_DEVICES"] for slot in found} == set(gpus)


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 2), (64, 2)])
def test_runs_at_a_time_on_a_cpu(cores, expected, monkeypatch, make_config):
    fake_speeds(monkeypatch, {1: 10, 2: 20})
    monkeypatch.setattr(slots, "cpu_cores", lambda: cores)
    assert len(slots.choose_slots(make_config(), [])[0]) == expected


@pytest.mark.parametrize(("gpus", "on_one"), [([], 5), (["0", "1"], 3)])
def test_a_number_of_runs_that_the_user_gives_is_taken(gpus, on_one, monkeypatch, make_config):
    fake_speeds(monkeypatch, {on_one: 10})
    assert len(slots.choose_slots(make_config(), gpus, 5)[0]) == 5


def test_one_run_that_does_not_fit_is_an_error(monkeypatch, make_config):
    fake_speeds(monkeypatch, {})
    with pytest.raises(StudyError, match="out of memory"):
        slots.choose_slots(make_config(), ["0"])


def fake_gpu(monkeypatch, capability, count=2):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90", "compute_120"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA GeForce GTX 1080 Ti")


def test_a_gpu_that_torch_no_longer_serves_is_named_with_the_versions_that_do(monkeypatch):
    fake_gpu(monkeypatch, (6, 1))
    with pytest.raises(StudyError, match=r"GTX 1080 Ti is too old for torch .*torch==2\.7\.1"):
        slots.visible_gpus()


@pytest.mark.parametrize(
    ("named", "expected"), [(None, ["0", "1"]), ("3,5", ["3", "5"]), ("GPU-a,GPU-b", ["GPU-a", "GPU-b"])]
)
def test_gpus_keep_the_names_that_the_user_gave(named, expected, monkeypatch):
    fake_gpu(monkeypatch, (9, 0))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    if named:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert slots.visible_gpus() == expected
