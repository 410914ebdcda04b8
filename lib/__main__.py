"""The command line behind run_all.sh: pick a study, run what is missing, analyse, write HTML."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from lib import estimate, launch
from lib.benchmark import benchmark_folder
from lib.data import load_dataset, local_source
from lib.devices import choose_device, resolve_precision
from lib.errors import StudyError
from lib.models import build_model
from lib.notebooks import NotebookProcess
from lib.paths import NOTEBOOKS, REPORT, data_folder, outputs_folder, shown
from lib.runs import ORIGIN_KEYS, finished_runs, lock
from lib.study import load_study

ANALYSIS_SECONDS = 60  # kept free at the end of a time budget


def main(arguments=None):
    """Run one study as the arguments say; returns the exit status."""
    options = _parser().parse_args(arguments)
    for variable in {"STUDY_DATA", "STUDY_OUTPUTS"} & set(os.environ):
        os.environ[variable] = str(Path(os.environ[variable]).resolve())  # notebooks run in another folder
    started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that running notebooks are stopped in order
    try:
        if options.study == "benchmark":
            return _benchmark(options)
        gpus = launch.visible_gpus()
        name = options.study or _default_study(gpus, options.dry_run)
        if name.endswith(".yaml"):
            name = str(Path(name).resolve())
        study = load_study(name)
        for config in {config.arm: config for config in (*study.runs, *study.awaiting)}.values():
            _check_buildable(config)
        if options.dry_run:
            return _dry_run(study, options, gpus)
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
        _analyse(study, name, launch.slot_environments(1, gpus)[0])
    else:
        print("no run on the test images is complete, so there is nothing to analyse yet")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _train(study, name, missing, options, gpus, started):
    """Run what is missing, then what waited for the tuning; returns the study as it stands then and the failures."""
    _check_comparable(study, missing)
    slots, seconds = _announce([*missing, *study.awaiting], options.jobs, gpus)
    while True:
        budget = None
        if options.time_budget:
            budget = options.time_budget * 60 - (time.monotonic() - started) - ANALYSIS_SECONDS
        queue = launch.Queue(study, name, missing, slots, seconds, budget)
        failures, seconds = queue.work(), queue.seconds_per_image
        tuned, study = bool(study.awaiting), load_study(name)
        missing = launch.missing_runs(study)
        if queue.not_started:
            left = len(missing) + len(study.awaiting)
            print(f"the time budget leaves {left} runs for next time: the same command goes on with them")
        if failures or queue.not_started or not tuned or study.awaiting:
            return study, failures


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
    from lib.html import notebook_to_html

    if options.jobs or options.time_budget or options.dry_run:
        raise StudyError("the benchmark takes no further options: its settings are the parameters of benchmark.ipynb")
    launch.visible_gpus()  # names a GPU that is too old
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
    if local_source() is None and not dry_run:
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


def _check_comparable(study, missing):
    """Fetch the images of the missing runs; refuse to add runs that cannot be compared with the finished ones."""
    dataset = load_dataset(missing[0].dataset)
    here = (dataset.source, dataset.fingerprint, resolve_precision(missing[0], choose_device()))
    for _, _, summary in finished_runs(study)[:1]:
        there = tuple(summary[key] for key in ORIGIN_KEYS)
        if there != here:
            shapes = ["{} ({:.12}) in {}".format(*origin) for origin in (there, here)]
            raise StudyError(
                f"{shown(outputs_folder(study.name))} has runs on {shapes[0]} and this would add runs on {shapes[1]}: "
                "bring the same images and a like machine, or set STUDY_OUTPUTS to an empty folder"
            )


def _announce(runs, jobs, gpus):
    """Print what is ahead; returns the slots and the expected seconds of training an image in one."""
    print("measuring how fast this machine trains …", flush=True)
    slots, seconds = launch.choose_slots(runs[0], gpus, jobs)
    total = seconds * sum(map(estimate.images_to_train, runs)) + launch.NOTEBOOK_SECONDS * len(runs)
    where = f"{len(gpus)} GPU{'s'[: len(gpus) > 1]}" if gpus else "the CPU"
    print(f"{len(runs)} runs to do, {len(slots)} at a time on {where}: about {_duration(total / len(slots))}")
    return slots, seconds


def _dry_run(study, options, gpus):
    missing = launch.missing_runs(study)
    for config in missing:
        print(f"{config.arm}  seed {config.seed}")
    for config in study.awaiting:
        print(f"{config.arm}  seed {config.seed}  (with the settings that the tuning finds)")
    if missing:
        if missing[0].dataset == "cifar10" and local_source() is None:
            print(f"CIFAR-10 is not in {shown(data_folder())}/ yet: it would be downloaded first")
        _announce([*missing, *study.awaiting], options.jobs, gpus)
    else:
        print(f"all {len(study.runs)} runs of {study.name} are complete")
    return 0


def _duration(seconds):
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def _parser():
    # ./run_all.sh --help explains the options without needing the environment
    parser = argparse.ArgumentParser(prog="./run_all.sh", add_help=False, allow_abbrev=False)
    parser.add_argument("--study", metavar="NAME")
    parser.add_argument("--jobs", type=_positive(int), metavar="N")
    parser.add_argument("--time-budget", type=_positive(float), metavar="MINUTES")
    parser.add_argument("--dry-run", action="store_true")
    return parser


def _positive(kind):
    def convert(text):
        value = kind(text)
        if not value > 0:
            raise ValueError
        return value

    convert.__name__ = f"positive {kind.__name__}"
    return convert


if __name__ == "__main__":
    sys.exit(main())
