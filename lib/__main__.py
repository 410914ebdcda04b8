"""The command line behind run_all.sh: pick a study, train what is missing, analyse, write HTML and the paper."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from lib.data import cifar10_is_here, load_dataset
from lib.files import REPORT, StudyError, data_folder, lock, outputs_folder, read_json, shown
from lib.launch.notebook import NotebookProcess
from lib.launch.pages import notebook_to_html, write_pages
from lib.launch.pool import Pool, check_trainable, missing_runs, slots, visible_gpus
from lib.runs import finished_runs
from lib.study import load_study, study_names

ANALYSIS_SECONDS = 60  # kept free at the end of a time budget


def main(arguments=None):
    """Run one study as the arguments say; returns the exit status."""
    started = time.monotonic()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace", line_buffering=True)  # a terminal in Latin-1 has no ellipsis
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that running notebooks are stopped in order
    try:
        if options.study == "benchmark":
            return _benchmark()
        name = options.study or _default_study()
        if name.endswith((".yaml", ".yml")):
            name = str(Path(name).resolve())
        study = load_study(name)
        with lock(outputs_folder(study.name), f"study {study.name!r}"):
            return _run(study, name, options, started)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoints", file=sys.stderr)
        return 130


def _options(arguments):
    # run_all.sh --help explains the options without needing the environment
    parser = argparse.ArgumentParser(prog="./run_all.sh", add_help=False, allow_abbrev=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--study", metavar="NAME")
    parser.add_argument("--engine", choices=("local", "slurm"), default="local")
    parser.add_argument("--jobs", type=int, metavar="N")
    parser.add_argument("--time-budget", type=float, metavar="MINUTES")
    options = parser.parse_args(arguments)
    if options.words:
        known = options.words[0] in (*study_names(), "benchmark")
        hint = f"did you mean --study {options.words[0]}?" if known else "--help shows what there is"
        parser.error(f"unknown word {options.words[0]!r}: {hint}")
    for option in ("jobs", "time_budget"):
        if not (getattr(options, option) or 1) > 0:
            parser.error(f"--{option.replace('_', '-')} must be more than 0")
    if options.engine == "slurm" and not options.study:
        parser.error("--engine slurm needs --study: this machine does not tell which study suits the nodes")
    if options.engine == "slurm" and options.time_budget:
        parser.error("--engine slurm takes no --time-budget: SBATCH_TIMELIMIT limits each job")
    return options


def _run(study, name, options, started):
    missing, total = missing_runs(study), len(study.runs) + len(study.awaiting)
    print(f"study {study.name}: {study.title}; {total - len(missing) - len(study.awaiting)} of {total} runs are complete")
    failed = 0
    if missing:
        study, failed = _train(study, name, options, started)
    if any(not config.validation_images for config, _, _ in finished_runs(study)):
        _analyse(study, name)
    else:
        print("no run on the test images is complete, so there is nothing to analyse yet")
    if failed:
        print(f"error: {failed} runs failed, as told above: the same command tries them again", file=sys.stderr)
    return 1 if failed else 0


def _train(study, name, options, started):
    """Run what is missing, then what waited for the tuning; returns the study as it stands then and the failed runs."""
    missing, left = missing_runs(study), []
    if options.engine == "slurm":
        from lib.launch import slurm  # it alone needs submitit

        slurm.check_queue(study)
    check_trainable(study, [*missing, *study.awaiting])
    deadline = options.time_budget and started + options.time_budget * 60 - ANALYSIS_SECONDS
    while True:
        if options.engine == "slurm":
            failed = slurm.run_jobs(study, name, missing, options.jobs)
        else:
            failed, left = Pool(study, name, missing, slots(visible_gpus(), options.jobs), deadline).work()
        waited, study = bool(study.awaiting), load_study(name)
        missing = missing_runs(study)
        if not missing or not waited or study.awaiting:
            break
    if left:
        print(f"the time budget leaves {len(left) + len(study.awaiting)} runs for next time: the same command goes on")
    return study, failed


def _analyse(study, name):
    folder = outputs_folder(study.name)
    print("analysis …")
    NotebookProcess("analysis", folder / "analysis.ipynb", folder / "logs" / "analysis.log", {"study": name}).wait()
    page = write_pages(study, name)
    print(f"results: {shown(folder / 'results.json')}; to read: {shown(page)}")
    results = read_json(folder / "results.json") or {}
    if study.name == "paper" and results["primary"]["complete"] and not os.environ.get("STUDY_OUTPUTS"):
        _build_paper()  # which is about outputs/ alone


def _build_paper():
    from lib.paper import MissingTeXError, build

    try:
        print(f"paper: {shown(REPORT / 'paper.pdf')}, {build()} pages")
    except MissingTeXError as error:  # everything else is complete without it
        print(f"no paper was made: {error}")


def _benchmark():
    from lib.benchmark import benchmark_folder  # needs torch
    from lib.train.trainer import choose_device

    visible_gpus()  # names one that is too old
    folder, log = benchmark_folder(choose_device()), outputs_folder("benchmark") / "logs" / "benchmark.log"
    with lock(outputs_folder("benchmark"), "the benchmark"):
        print(f"benchmark, about ten minutes on a CPU; leave the machine alone; {shown(log)} shows how far it is")
        NotebookProcess("benchmark", folder / "benchmark.ipynb", log, {}).wait()
        notebook_to_html(folder / "benchmark.ipynb", folder / "benchmark.html", "Benchmark of the training")
    print(f"results: {shown(folder / 'results.json')}; to read: {shown(folder / 'benchmark.html')}")
    return 0


def _default_study():
    """`paper` with a GPU, else `laptop`; `smoke` where it needs images that can neither be found nor downloaded."""
    gpus = visible_gpus()
    name = "paper" if gpus else "laptop"
    print(f"no --study given and {'a' if gpus else 'no'} GPU here: taking {name!r}")
    if missing_runs(load_study(name)) and not cifar10_is_here():
        try:
            load_dataset("cifar10")
        except StudyError:
            print(f"CIFAR-10 is neither in {shown(data_folder())}/ nor to be downloaded: taking 'smoke' instead")
            return "smoke"
    return name


if __name__ == "__main__":
    sys.exit(main())
