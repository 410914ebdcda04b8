"""The command line behind run_all.sh: pick a study, run what is missing, analyse, write HTML."""

import os
import signal
import sys
import time
from pathlib import Path

from lib import launch, slurm
from lib.data import cifar10_is_here, load_dataset
from lib.devices import choose_device, resolve_precision
from lib.errors import StudyError
from lib.models import build_model
from lib.notebooks import NotebookProcess, home_environment
from lib.options import read_options
from lib.paths import NOTEBOOKS, REPORT, data_folder, outputs_folder, shown
from lib.preview import announce, announce_jobs, dry_run
from lib.runs import finished_runs, lock
from lib.slots import slot_environments, visible_gpus
from lib.study import load_study

ANALYSIS_SECONDS = 60  # kept free at the end of a time budget


def main(arguments=None):
    """Run one study as the arguments say; returns the exit status."""
    options = read_options(arguments)
    for variable in {"STUDY_DATA", "STUDY_OUTPUTS"} & set(os.environ):
        os.environ[variable] = str(Path(os.environ[variable]).resolve())  # notebooks run in another folder
    os.environ.update(home_environment())
    started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that running notebooks are stopped in order
    try:
        if options.study == "benchmark":
            return _benchmark(options)
        if options.engine == "slurm":
            slurm.check_slurm()
        gpus = visible_gpus() if options.engine == "local" else []  # those of its nodes are SLURM's to give
        name = options.study or _default_study(gpus, options.dry_run)
        if name.endswith(".yaml"):
            name = str(Path(name).resolve())
        study = load_study(name)
        for config in {config.arm: config for config in (*study.runs, *study.awaiting)}.values():
            _check_buildable(config)
        if options.dry_run:
            dry_run(study, options, gpus)
            return 0
        with lock(outputs_folder(study.name), f"study {study.name!r}"):
            return _run(study, name, options, gpus, started)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoints", file=sys.stderr)
        return 130


def _run(study, name, options, gpus, started):
    missing = launch.missing_runs(study)
    total = len(study.runs) + len(study.awaiting)
    print(f"study {study.name}: {study.title}; {len(study.runs) - len(missing)} of {total} runs are complete")
    failures = []
    if missing:
        study, failures = _train(study, name, missing, options, gpus, started)
    else:
        print("nothing is left to train; STUDY_OUTPUTS=my-outputs trains everything anew in a folder of its own")
    if any(not config.validation_images for config, _, _ in finished_runs(study)):
        _analyse(study, name, slot_environments(1, gpus)[0])
    else:
        print("no run on the test images is complete, so there is nothing to analyse yet")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _train(study, name, missing, options, gpus, started):
    """Run what is missing, then what waited for the tuning; returns the study as it stands then and the failures."""
    runs = [*missing, *study.awaiting]
    if options.engine == "slurm":
        launch.check_comparable(study, missing[0])
        announce_jobs(runs, options.jobs)
    else:
        launch.check_comparable(study, missing[0], resolve_precision(missing[0], choose_device()))
        slots, seconds = announce(runs, options.jobs, gpus)
    while True:
        not_started = []
        if options.engine == "slurm":
            failures = slurm.run_jobs(study, name, missing, options.jobs)
        else:
            queue = launch.Queue(study, name, missing, slots, seconds, _seconds_left(options, started))
            failures, seconds, not_started = queue.work(), queue.seconds_per_work, queue.not_started
        tuned, study = bool(study.awaiting), load_study(name)
        missing = launch.missing_runs(study)
        if not_started:
            left = len(missing) + len(study.awaiting)
            print(f"the time budget leaves {left} runs for next time: the same command goes on with them")
        if failures or not_started or not tuned or study.awaiting:
            return study, failures


def _seconds_left(options, started):
    if options.time_budget:
        return options.time_budget * 60 - (time.monotonic() - started) - ANALYSIS_SECONDS


def _analyse(study, name, environment):
    from lib.pages import write_pages  # slow to import, and only needed here

    folder = outputs_folder(study.name)
    print("analysis …")
    log = folder / "logs" / "analysis.log"
    NotebookProcess(NOTEBOOKS / "analysis.ipynb", folder / "analysis.ipynb", log, {"study": name}).wait()
    if not os.environ.get("STUDY_OUTPUTS"):  # the paper is about outputs/ alone
        _write_paper(study)
    index = write_pages(study, folder, launch.ensure_notebooks(study, name, environment))
    print(f"results: {shown(folder / 'results.json')}; to read: {shown(index)}")


def _write_paper(study):
    from lib.paper import build_paper
    from lib.report import REPORTED, reported_study, write_report  # slow to import, and only needed here

    if study.name not in REPORTED:
        return
    try:
        write_report(reported_study(), REPORT / "generated")
        pages = build_paper(REPORT / "paper.tex", REPORT / "paper.pdf")
        print(f"paper: {shown(REPORT / 'paper.pdf')}, {pages} pages")
    except StudyError as error:  # everything else is complete without it
        print(f"no paper was made: {error}")


def _benchmark(options):
    from lib.benchmark import benchmark_folder  # slow to import, and only needed here
    from lib.html import notebook_to_html

    if options.jobs or options.time_budget or options.dry_run or options.engine == "slurm":
        raise StudyError("the benchmark takes no further options: its settings are the parameters of benchmark.ipynb")
    visible_gpus()  # names a GPU that is too old
    folder, log = benchmark_folder(choose_device()), outputs_folder("benchmark") / "logs" / "benchmark.log"
    with lock(outputs_folder("benchmark"), "the benchmark"):
        print(f"benchmark, about ten minutes on a CPU; leave the machine alone; {shown(log)} shows how far it is")
        notebook = folder / "benchmark.ipynb"
        NotebookProcess(NOTEBOOKS / "benchmark.ipynb", notebook, log, {}).wait()
        notebook_to_html(notebook, folder / "benchmark.html", "Benchmark of the training")
    print(f"results: {shown(folder / 'results.json')}; to read: {shown(folder / 'benchmark.html')}")
    return 0


def _default_study(gpus, dry_run):
    """`paper` with a GPU, else `laptop`; `smoke` where CIFAR-10 can neither be found nor downloaded."""
    name = "paper" if gpus else "laptop"
    print(f"no --study given and {'a' if gpus else 'no'} GPU here: taking {name!r}")
    if not cifar10_is_here() and not dry_run:
        try:
            load_dataset("cifar10")
        except StudyError:
            where = shown(data_folder())
            print(
                f"CIFAR-10 is neither in {where}/ nor to be downloaded: this is 'smoke' on the bundled digits instead"
            )
            return "smoke"
    return name


def _check_buildable(config):
    import torch

    with torch.device("meta"):
        try:
            build_model(config, 10)
        except StudyError as error:
            raise StudyError(f"{config.arm} cannot be built: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
