from lib import wholeruns


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
