"""Kill trainings or analyses by SIGKILL at seeded moments, each in a fork of one process that has imported everything.

    python tests/killtrials.py FOLDER (train | analyse)

works once undisturbed and then once for each trial, which is killed up to three times on its way, all in folders below
FOLDER, and prints what happened as JSON. Whether the outcome is right is for the test to say.
"""

import ast
import json
import os
import signal
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
from conftest import tiny_config, tiny_dataset
from IPython.core.inputtransformer2 import TransformerManager
from matplotlib.figure import Figure

from lib.config import RunConfig
from lib.experiment import execute_run
from lib.madeup import make_up_run
from lib.paths import NOTEBOOKS, run_folder
from lib.wholeruns import ARMS, write_study

SEED = 20
MOST_KILLS = 3  # of one trial
STUDY = "killed"
CONFIG = tiny_config(probe_images=8)
RESULTS = ("results.json", "tables/arms.csv")  # where an older analysis is pretended to have been
OLD = b"of an older analysis"


def train(outputs):
    """One run with a checkpoint after each epoch; notes with how many epochs it begins."""
    os.environ["STUDY_OUTPUTS"] = str(outputs)
    began = []

    def note(rows):
        if not began:
            began.append(len(rows))
            (outputs / "began").write_text(str(len(rows)))

    execute_run(CONFIG, DATASET, run_folder(STUDY, CONFIG.arm, CONFIG.seed), note, checkpoint_seconds=0)


def analyse(outputs):
    """The code cells of analysis.ipynb, one after another, on runs that are made up."""
    os.environ["STUDY_OUTPUTS"] = str(outputs)
    names = {}
    for cell in NOTEBOOK.cells:
        if cell.cell_type == "code":
            exec(python(cell), names)
            if "parameters" in cell.metadata.get("tags", []):
                names["study"] = str(STUDY_FILE)


def python(cell):
    """The code of a cell, its lines for the shell as calls."""
    return TransformerManager().transform_cell(cell.source)


def import_all():
    """Import what the analysis imports, so that forks need no time for it."""
    for cell in NOTEBOOK.cells:
        if cell.cell_type == "code":
            imports = [each for each in ast.parse(python(cell)).body if isinstance(each, ast.Import | ast.ImportFrom)]
            exec(compile(ast.Module(imports, []), "imports", "exec"), {})


def prepare_analysis(outputs):
    """Finished runs to be analysed, and results that are to be replaced."""
    os.environ["STUDY_OUTPUTS"] = str(outputs)
    for arm in ARMS:
        for seed in range(2):
            config = RunConfig(arm, seed, arm, "digits", epochs=3, warmup_epochs=1)
            make_up_run(run_folder(STUDY_FILE.stem, arm, seed), config, images=100)
    for name in RESULTS:
        path = outputs / STUDY_FILE.stem / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(OLD)


def die_at(outputs, last_step):
    """Count this process's steps on files below `outputs` (opening, syncing, renaming, removing), and die at the last.

    A file that is being synced when its writer dies is left half as long. Returns the list that grows with each step.
    """
    steps, sync = [], os.fsync

    def step(path, handle=None):
        if Path(os.fsdecode(path)).is_relative_to(outputs):
            steps.append(str(path))
            if len(steps) == last_step:
                if handle is not None:
                    os.ftruncate(handle, os.fstat(handle).st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

    def audit(event, arguments):
        if event in ("open", "os.rename", "os.remove") and isinstance(arguments[0], str | bytes | os.PathLike):
            step(arguments[0])

    def fsync(handle):
        step(Path(f"/proc/self/fd/{handle}").readlink(), handle)
        sync(handle)

    os.fsync = fsync
    sys.addaudithook(audit)
    return steps


def in_a_fork(work, outputs, last_step=0, seconds=None):
    """Do the work in a child that dies at a step or after so many seconds; returns whether it was killed so."""
    child = os.fork()
    if not child:
        status = 1
        try:
            os.dup2(os.open(outputs / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
            os.dup2(1, 2)
            steps = die_at(outputs / STUDY if work is train else outputs / STUDY_FILE.stem, last_step)
            work(outputs)
            (outputs / "steps").write_text(str(len(steps)))
            status = 0
        finally:
            os._exit(status)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)  # where it has ended, it waits to be asked how: no other process is hit
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) > 0:
        raise RuntimeError((outputs / "log").read_text())
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def training_phase(outputs):
    """Where a training was when it died, told from what it left."""
    folder = outputs / STUDY / "runs" / CONFIG.arm / f"seed-{CONFIG.seed:02d}"
    names = [path.name for path in folder.glob("*")]
    partial = [name.split(".partial-")[0] for name in names if ".partial-" in name]
    if partial:
        return f"writing {partial[0]}"
    for name, phase in (("summary.json", "complete"), ("test_logits.npz", "testing"), ("metrics.csv", "training")):
        if name in names:
            return phase
    return "starting"


def analysis_phase(outputs):
    """Where an analysis was when it died, told from what it left."""
    folder = outputs / STUDY_FILE.stem
    partial = [path.relative_to(folder) for path in folder.rglob("*.partial-*")]
    if partial:
        return f"writing {partial[0].parts[0].split('.partial-')[0]}"
    return "drawing" if (folder / "results.json").read_bytes() == OLD else "between tables"


def epochs_done(outputs):
    """Rows of metrics that are kept."""
    path = outputs / STUDY / "runs" / CONFIG.arm / f"seed-{CONFIG.seed:02d}" / "metrics.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


def snapshot(outputs):
    """{name: content} of the files of an analysis that are in their places."""
    folder = outputs / STUDY_FILE.stem
    paths = [*folder.glob("results.json"), *folder.glob("tables/*"), *folder.glob("figures/*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if ".partial-" not in path.name}


def undisturbed(work, outputs):
    """Do the work once without a kill; returns its steps and its seconds."""
    started = time.perf_counter()
    in_a_fork(work, outputs)
    return int((outputs / "steps").read_text()), time.perf_counter() - started


def kill_trial(work, outputs, kills, whole):
    """Do the work, killed in turn as `kills` says ({last_step} or {seconds}), then let it end; returns its record.

    phases: where each kill struck. lost: the epochs that each start after a kill had to repeat. damaged: names of files
    that were in place after a kill and neither the old ones nor those of `whole`.
    """
    record = {"outputs": str(outputs), "phases": [], "lost": [], "damaged": []}
    for kill in [*kills, {}]:
        (outputs / "began").unlink(missing_ok=True)
        done = epochs_done(outputs)
        killed = in_a_fork(work, outputs, **kill)
        if (outputs / "began").exists():
            record["lost"].append(done - int((outputs / "began").read_text()))
        if killed:
            record["phases"].append(training_phase(outputs) if work is train else analysis_phase(outputs))
            found = snapshot(outputs)
            record["damaged"] += [name for name in found if found[name] not in (whole.get(name), OLD)]
        elif "seconds" in kill:  # the undisturbed one was slower: again, and sooner
            return kill_trial(work, fresh(work, outputs.with_name(f"{outputs.name}-")), [halved(kill)], whole)
    return record


def halved(kill):
    return {"seconds": kill["seconds"] / 2}


def fresh(work, outputs):
    """Make the folder in which the work can start; returns it."""
    outputs.mkdir()
    if work is analyse:
        prepare_analysis(outputs)
    return outputs


def plans(generator, at_steps, at_moments):
    """Kills of each trial as shares of the steps or of the time: the first ones spread over the whole, later anywhere.

    Trials at steps have up to three kills.
    """
    for index in range(at_steps):
        yield "last_step", [(index + generator.random()) / at_steps, *generator.random(generator.integers(MOST_KILLS))]
    for index in range(at_moments):
        yield "seconds", [(index + generator.random()) / at_moments]


def trials_of(work, at_steps, at_moments):
    """Records of all trials of one kind of work, which leave their outputs below FOLDER beside `whole`."""
    whole = fresh(work, FOLDER / "whole")
    steps, seconds = undisturbed(work, whole)
    records = []
    for number, (unit, shares) in enumerate(plans(np.random.default_rng(SEED), at_steps, at_moments)):
        kills = [{unit: 1 + int(share * steps) if unit == "last_step" else share * seconds} for share in shares]
        records.append(kill_trial(work, fresh(work, FOLDER / f"trial-{number:02d}"), kills, snapshot(whole)))
    return records


def draw_nothing():
    """Let figures be drawn in no time: how their bytes are saved is what matters here, and they take most seconds."""
    Figure.draw_without_rendering = lambda figure: None
    Figure.savefig = lambda figure, file, **how: file.write(repr((len(figure.axes), sorted(how))).encode())


if __name__ == "__main__":
    FOLDER, WORK = Path(sys.argv[1]).resolve(), sys.argv[2]
    DATASET = tiny_dataset()
    NOTEBOOK = nbformat.read(NOTEBOOKS / "analysis.ipynb", as_version=4)
    STUDY_FILE = write_study(FOLDER, {"dataset": "digits", "epochs": 3, "warmup_epochs": 1}, seeds=2)
    if WORK == "train":
        RECORDS = trials_of(train, at_steps=9, at_moments=5)
    else:
        import_all()
        draw_nothing()
        RECORDS = trials_of(analyse, at_steps=4, at_moments=2)
    print(json.dumps(RECORDS))
