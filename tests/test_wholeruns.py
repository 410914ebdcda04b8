from lib import wholeruns
from lib.runs import load_metrics, load_runs
from lib.study import load_study


def test_made_up_runs_are_complete_runs_of_a_valid_study(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_OUTPUTS", str(tmp_path))
    study = load_study(str(wholeruns.write_study(tmp_path, {"dataset": "cifar10", "epochs": 6}, seeds=2)))
    for config in study.runs:
        wholeruns.make_up_run(tmp_path / study.name / "runs" / config.arm / f"seed-{config.seed:02d}", config)
    runs = load_runs(study)
    assert len(runs) == 4
    assert runs["test_accuracy"].between(0.88, 0.96).all()
    assert runs["test_accuracy"].nunique() == 4
    assert len(load_metrics(study)) == 24


def test_a_whole_run_takes_longer_than_its_training():
    recipe = {"dataset": "digits", "width": 1 / 16, "reduction": 4, "epochs": 1, "warmup_epochs": 1, "batch_size": 32}
    seconds = wholeruns.time_whole_run(recipe)
    assert 0 < seconds["train_seconds"] < seconds["wall_seconds"]


def test_tiny_runs_are_trained_one_after_another(monkeypatch):
    trained = []
    monkeypatch.setattr(wholeruns, "execute_run", lambda config, dataset, folder: trained.append((config.seed, folder)))
    wholeruns.tiny_runs(3)
    assert [seed for seed, _ in trained] == [0, 1, 2]
    assert len({folder for _, folder in trained}) == 3
