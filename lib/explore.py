"""Look for yourself: the test images that two chosen arms disagree on, and an arm's gates by class; without torch."""

import html
import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from lib.behaviour import finished_seeds, image_disagreements, paired_seeds
from lib.data import CLASSES, local_test_images
from lib.errors import StudyError
from lib.figures import PAGE, TEXT, disagreement_gallery
from lib.paths import STUDIES, outputs_folder, run_folder
from lib.runs import load_arrays, load_logit_stack, load_run_table, load_runs
from lib.study import load_study

IMAGES = 10  # of either kind: a row of the gallery
FAINT = 0.05  # colours of gates reach this far at least, so that small differences look small
WIDTH = {"layout": {"width": "24rem"}, "style": {"description_width": "7rem"}}


def explore(study):
    """Show what two arms of a study disagree on and the gates of the first, with menus for study, arm and baseline.

    With STUDY_HEADLESS set, or without ipywidgets, the primary comparison of `study` alone, as figures. Raises
    StudyError for a damaged run.
    """
    try:
        import ipywidgets
    except ImportError:
        ipywidgets = None
    if os.environ.get("STUDY_HEADLESS") or ipywidgets is None:
        _show(View(study).parts(study.arm, study.baseline))
        return
    others = [name for name in studies_with_runs() if name != study.name]
    menu = ipywidgets.Dropdown(options=[study.name, *others], description="study", **WIDTH)
    box = ipywidgets.VBox()

    def choose_study(change):
        name = change["new"]
        try:
            view = View(study if name == study.name else load_study(name))
        except StudyError as error:
            box.children = (menu, ipywidgets.HTML(html.escape(str(error))))
        else:
            box.children = (menu, *_arm_menus(ipywidgets, view))

    menu.observe(choose_study, "value")
    choose_study({"new": study.name})
    display(box)


def studies_with_runs():
    """Names of the study files in lib/studies that have run folders, sorted."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml") if (outputs_folder(path.stem) / "runs").is_dir())


def _arm_menus(ipywidgets, view):
    """Menus for arm and baseline of a study, and below them what they choose."""
    arms, output = view.arms, ipywidgets.Output()
    first = {"arm": view.study.arm, "baseline": view.study.baseline}
    menus = [
        ipywidgets.Dropdown(options=arms, value=arm if arm in arms else None, description=name, **WIDTH)
        for name, arm in first.items()
    ]

    def draw(change=None):
        output.clear_output(wait=True)
        with output:
            _show(view.parts(*(menu.value for menu in menus)))

    for menu in menus:
        menu.observe(draw, "value")
    draw()
    return *menus, output


class View:
    """The finished runs of a study, and what two of its arms show: text and figures, in the order to read them."""

    def __init__(self, study):
        self.study, self.runs = study, load_runs(study)
        self.arms, self.images = [], None
        if len(self.runs):
            first = self.runs.iloc[0]
            self.arms = list(dict.fromkeys(self.runs["arm"]))
            self.classes = CLASSES[first["dataset"]]
            self.images = local_test_images(first["data_source"], first["data_fingerprint"])

    def parts(self, arm, baseline):
        """Markdown and Figures for two arms; a sentence where there is nothing to see. StudyError for a damaged run."""
        if not self.arms:
            return [Markdown(f"No run of `{self.study.name}` has read the test images yet.")]
        return [*self._disagreements(arm, baseline), *self._gates(arm)]

    def _disagreements(self, arm, baseline):
        seeds = paired_seeds(self.runs, arm, baseline)
        if arm == baseline or not seeds:
            return [Markdown("Choose two arms that have finished the same seeds.")]
        if self.images is None:
            return [Markdown("The test images of these runs are not on this machine: `data/README.md` says where.")]
        sides = disagreement_sides(self.study, arm, baseline, seeds)
        parts = []
        for better, shown in zip((arm, baseline), sides, strict=True):
            parts.append(Markdown(f"**More often right in `{better}`**" + ("" if len(shown) else ": no image.")))
            if len(shown):
                parts.append(disagreement_gallery(self.images, shown, self.classes, (baseline, arm)))
        return parts

    def _gates(self, arm):
        table = gates_by_class(self.study, arm, finished_seeds(self.runs, arm), self.classes)
        if not len(table):
            return [Markdown(f"`{arm}` has no gates.")]
        return [Markdown(f"**Gates of `{arm}` by class**"), class_gates(table)]


def disagreement_sides(study, arm, baseline, seeds):
    """The images that the arm, and those that the baseline, gets right more often: two tables of image_disagreements.

    At most IMAGES rows each, the largest difference first. seeds: finished by both arms.
    """
    stacks = [load_logit_stack(study, name, seeds) for name in (arm, baseline)]
    labels = stacks[0][1]
    predictions = [logits.argmax(-1) for logits, _ in stacks]
    correct = [predicted == labels for predicted in predictions]
    table = image_disagreements(*correct, *predictions, labels, len(labels))
    gained = table["right_arm"] > table["right_baseline"]
    return table[gained].head(IMAGES), table[~gained].head(IMAGES)


def gates_by_class(study, arm, seeds, classes):
    """How gates differ between classes: rows block, class, mean, distance, means over those of `seeds` with gates.

    mean: over the channels of a block and the test images of the class; distance: root mean square over channels of the
    class's mean gates minus those of the average class, 0 for gates that do not see the image. Empty for an arm without
    gates. Raises StudyError for a damaged file.
    """
    parts = []
    for folder in (run_folder(study.name, arm, seed) for seed in seeds):
        if not (folder / "gates.npz").exists():
            continue
        blocks = load_run_table(folder, "gates.csv", {"block": str})["block"]
        for block, gates in zip(blocks, load_arrays(folder / "gates.npz", *blocks), strict=True):
            gates = gates.astype(float)  # (classes, C), NaN for a class without images
            distance = np.sqrt(np.mean((gates - np.nanmean(gates, axis=0)) ** 2, axis=1))
            columns = {"block": block, "class": classes, "mean": gates.mean(1), "distance": distance}
            parts.append(pd.DataFrame(columns))
    if not parts:
        return pd.DataFrame(columns=["block", "class", "mean", "distance"])
    return pd.concat(parts).groupby(["block", "class"], sort=False).mean().reset_index()


def class_gates(table):
    """Do gates treat classes differently? By class and block, the mean gate and how far it is from the average class's.

    table: as from gates_by_class.
    """
    figure, axes = plt.subplots(1, 2, figsize=(PAGE, 2.9), sharey=True, layout="constrained")
    panels = (("mean", "mean gate", "PuOr_r", 0.5), ("distance", "distance from the average class", "Blues", None))
    for axis, (column, title, colours, centre) in zip(axes, panels, strict=True):
        values = table.pivot(index="class", columns="block", values=column)
        values = values.loc[table["class"].unique(), table["block"].unique()]
        _draw_heat_map(axis, values, colours, centre)
        axis.set(title=title, xlabel="block")
    return figure


def _draw_heat_map(axis, values, colours, centre):
    """Numbers on colours: from zero up, or on both sides of `centre`."""
    shades = values.to_numpy() - (centre or 0)
    limit = max(np.nanmax(np.abs(shades)), FAINT)
    axis.imshow(shades, cmap=colours, vmin=0 if centre is None else -limit, vmax=limit, aspect="auto")
    for (row, column), value in np.ndenumerate(values.to_numpy()):
        style = {"color": "white" if abs(shades[row, column]) > 0.6 * limit else "black", "fontsize": TEXT["cell"]}
        axis.text(column, row, f"{value:.3f}".removeprefix("0"), ha="center", va="center", **style)
    axis.set_xticks(range(values.shape[1]), [block.removeprefix("block") for block in values.columns])
    axis.set_yticks(range(len(values)), values.index)
    axis.tick_params(length=0)


def _show(parts):
    for part in parts:
        if isinstance(part, Figure):
            part.draw_without_rendering()
            part.set_layout_engine("none")  # settled: with images in it, the layout would move at every drawing
            plt.close(part)  # or the notebook shows it a second time
        display(part)
