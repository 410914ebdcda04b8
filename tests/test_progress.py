import pytest

from lib.progress import TrainingProgress

ROWS = [
    {"epoch": n, "train_loss": 1.5, "train_accuracy": 0.625, "train_seconds": 60.0, "images_per_second": 1234.5}
    for n in (1, 2)
]


def test_headless_prints_one_line_an_epoch_with_the_time_left(monkeypatch, capsys):
    monkeypatch.setenv("STUDY_HEADLESS", "1")
    progress = TrainingProgress(epochs=5)
    for count in range(3):
        progress(ROWS[:count])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1] == "epoch   2 of 5   loss 1.500   training accuracy 62.5%   1,234 images/s   3.0 min left"


@pytest.mark.parametrize("done", [0, 2])
def test_by_hand_a_bar_starts_where_the_run_does(done, monkeypatch, capsys):
    monkeypatch.delenv("STUDY_HEADLESS", raising=False)
    TrainingProgress(epochs=5)(ROWS[:done])
    assert f"{done}/5" in capsys.readouterr().out
