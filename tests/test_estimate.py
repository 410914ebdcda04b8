import pytest

from lib.errors import StudyError
from lib.estimate import images_per_second, images_to_train


def test_images_of_a_run_follow_from_its_settings(make_config):
    config = make_config(dataset="cifar10", epochs=10, validation_images=5000, train_fraction=0.1)
    assert images_to_train(config) == 10 * 4500


def test_each_of_several_runs_at_once_is_measured(make_config):
    rates = images_per_second(make_config(), [{"OMP_NUM_THREADS": "1"}] * 2)
    assert len(rates) == 2
    assert all(rate > 1 for rate in rates)


def test_a_network_that_cannot_be_built_ends_all_at_once(make_config):
    with pytest.raises(StudyError, match="2 at once cannot train: reduction = 3 does not divide"):
        images_per_second(make_config(reduction=3), [{}, {}])
