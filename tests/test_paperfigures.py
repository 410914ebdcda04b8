"""The figures of the paper show the numbers of the results, and what is there of a young study."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from papercases import PARTS, committed

from lib.comparisons import paired_values
from lib.data import CLASSES
from lib.paperfigures import PRINT_WIDTH, behaviour_figure, confusion_shifts, effects_figure, write_figures
from lib.runs import load_logit_stack, load_runs
from lib.statistics import recall_percent

pytestmark = pytest.mark.usefixtures("committed_outputs")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def points(axis):
    """All x values of points drawn without a line."""
    return np.concatenate([line.get_xdata() for line in axis.lines if line.get_linestyle() == "None"])


def test_every_pair_and_every_control_is_a_point():
    study, results = committed()
    differences = np.array([-0.5, 0.25, 1.0])
    axis = effects_figure(differences, study, results).axes[0]
    expected = [*differences, *[results["primary"]["difference_pp"]] * 3]
    expected += [row["difference_pp"] for row in results["controls"]]
    np.testing.assert_allclose(sorted(points(axis)), sorted(expected))


@pytest.mark.parametrize(("pairs", "shown"), [(5, False), (10, True)])
def test_adjusted_p_values_are_shown_where_they_can_be_small(pairs, shown):
    study, results = committed()
    for row in results["controls"]:
        row |= {"n_pairs": pairs, "p_adjusted": 0.123}
    texts = [text.get_text() for text in effects_figure(np.zeros(3), study, results).axes[0].texts]
    assert ("0.123" in texts) == shown


def test_figures_fit_the_text_and_need_no_part_of_the_results():
    study, results = committed()
    for name in PARTS:
        results.pop(name, None)
    for figure in (effects_figure(np.array([0.1]), study, results), behaviour_figure(study, results, None)):
        assert figure.get_figwidth() == PRINT_WIDTH


def test_the_diagonal_of_the_shifts_is_the_difference_in_recall():
    study, _ = committed()
    seeds = list(paired_values(load_runs(study), study.arm, study.baseline).index)[:2]
    shifts = confusion_shifts(study, seeds)
    recall = {}
    for arm in (study.arm, study.baseline):
        logits, labels = load_logit_stack(study, arm, seeds)
        recall[arm] = recall_percent(logits.argmax(-1), labels, 10)
    np.testing.assert_allclose(shifts.diagonal(axis1=1, axis2=2), recall[study.arm] - recall[study.baseline])
    np.testing.assert_allclose(shifts.sum(-1), 0, atol=1e-9)
    assert confusion_shifts(study, []) is None


def test_a_shift_is_signed_only_where_its_interval_excludes_zero():
    study, results = committed()
    shifts = np.zeros((4, 10, 10))
    shifts[:, 3, 5] = (1.0, 1.1, 0.9, 1.0)  # clear
    shifts[:, 5, 3] = (-2.0, 2.0, -2.0, 2.1)  # not
    shifts[:, 6, 6] = (-1.0, -1.1, -0.9, -1.0)
    axis = behaviour_figure(study, results, shifts).axes[2]
    signs = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axis.texts}
    assert signs == {(3, 5): "+", (6, 6): "−"}
    assert [label.get_text() for label in axis.get_yticklabels()] == list(CLASSES["cifar10"])


def test_equal_results_give_equal_files_and_leave_the_style_alone(tmp_path):
    study, results = committed()
    before = dict(plt.rcParams)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_figures(study, results, tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert dict(plt.rcParams) == before
