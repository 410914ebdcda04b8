"""The command line behind run_all.sh: pick a study, train what is missing, analyse, write HTML and the paper."""

import argparse
import os
import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from lib.data import load_dataset
from lib.files import REPORT, StudyError, data_folder, lock, outputs_folder, shown
from lib.launch.notebook import execute
from lib.launch.pool import Pool, check_trainable, missing_runs, slots, visible_gpus
from lib.runs import diverged_runs, finished_runs
from lib.study import load_study, study_names

ANALYSIS_SECONDS = 60  # kept free at the end of a time budget


def main(arguments=None):
    """Run one study as the arguments say; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace", line_buffering=True)  # a terminal in Latin-1 has no ellipsis
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that running notebooks are stopped in order
    try:
        if options.study == "benchmark":
            return _benchmark()
        name = options.study or _default_study()
        if name.endswith((".yaml", ".yml")):
            name = str(Path(name).expanduser().resolve())
        study = load_study(name)
        with lock(outputs_folder(study.name), f"study {study.name!r}"):
            return _run(study, name, options)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoints", file=sys.stderr)
        return 130


def _options(arguments):
    # run_all.sh --help explains the options without needing the environment
    parser = argparse.ArgumentParser(prog="./run_all.sh", add_help=False, allow_abbrev=False)
    parser.add_argument("--study")
    parser.add_argument("--engine", choices=("local", "sequence", "slurm"), default="local")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--time-budget", type=float, metavar="MINUTES")
    options, words = parser.parse_known_args(arguments)
    for word in words:
        known = word in (*study_names(), "benchmark") or word.endswith((".yaml", ".yml"))
        parser.error(f"unknown word {word!r}: {f'did you mean --study {word}?' if known else 'see --help'}")
    if any(number is not None and number <= 0 for number in (options.jobs, options.time_budget)):
        parser.error("--jobs and --time-budget must be more than 0")
    if options.engine == "slurm" and (options.time_budget or not options.study):
        parser.error("--engine slurm needs --study and takes no --time-budget: SBATCH_TIMELIMIT limits each job")
    return options


def _default_study():
    """`paper` with a GPU, else `laptop`; `smoke` where it needs images that can neither be found nor downloaded."""
    gpus = visible_gpus()
    name = "paper" if gpus else "laptop"
    print(f"no --study given and {'a' if gpus else 'no'} GPU here: taking {name!r}")
    if missing_runs(load_study(name)):
        try:
            load_dataset("cifar10")
        except StudyError:
            print(f"CIFAR-10 is neither in {shown(data_folder())}/ nor to be downloaded: taking 'smoke' instead")
            return "smoke"
    return name


def _run(study, name, options):
    analyses = find_spec("papermill")  # not where runs are only trained, to be analysed elsewhere
    deadline = float(os.environ.get("STUDY_DEADLINE") or 0) or None  # of a process that has started itself anew
    if options.time_budget and not deadline:
        deadline = time.monotonic() + 60 * options.time_budget - ANALYSIS_SECONDS * bool(analyses)
    total = len(study.runs) + len(study.awaiting)
    print(f"study {study.name}: {study.title}; {len(finished_runs(study))} of {total} runs are complete")
    for config, folder, _ in diverged_runs(study):
        print(f"{config.arm} seed {config.seed} has diverged and is excluded: delete {shown(folder)} to try again")
    failed = left = 0
    while missing := missing_runs(study):
        check_trainable(study, missing)
        if options.engine == "slurm":
            from lib.launch.slurm import run_jobs  # only clusters need submitit

            failed = run_jobs(study, name, missing, options.jobs)
        elif options.engine == "sequence":
            from lib.launch.sequence import run_sequence  # torch is slow to import

            failed, left = run_sequence(study, missing, deadline)
        else:
            failed, left = Pool(study, name, missing, slots(visible_gpus(), options.jobs), deadline).work()
        waited, study = study.awaiting, load_study(name)
        if study.awaiting or not waited:  # else the tuning has just ended, and its winners can be trained
            break
    if left:
        print(f"the time budget leaves {left + len(study.awaiting)} runs for next time: the same command goes on")
    if failed:
        print(f"{failed} runs failed, as told above: the same command tries them again", file=sys.stderr)
    if not finished_runs(study):
        print("no run is complete, so there is nothing to analyse yet")
    elif not analyses:
        print("papermill is not installed: the same command analyses the runs where it is")
    else:
        _analyse(study, name)
    return 1 if failed else 0


def _analyse(study, name):
    from lib.launch.pages import write_pages  # slow to import

    print("analysis …")
    folder = outputs_folder(study.name)
    execute("analysis", folder, {"study": name, "arm": "", "baseline": ""})
    page = write_pages(study, name)
    print(f"results: {shown(folder / 'results.json')}; to read: {shown(page)}")
    if study.name in ("paper", "replication", "gates") and not os.environ.get("STUDY_OUTPUTS"):  # it is about outputs/
        from lib.paper import MissingTeXError, build

        try:
            print(f"paper: {shown(REPORT / 'paper.pdf')}, {build()} pages")
        except MissingTeXError as error:  # everything else is complete without it
            print(f"no paper was made: {error}")


def _benchmark():
    from lib.launch.pages import notebook_to_html
    from lib.train.run import benchmark_folder
    from lib.train.trainer import choose_device

    folder = benchmark_folder(choose_device())
    page = folder / "benchmark.html"
    with lock(outputs_folder("benchmark"), "the benchmark"):
        print("benchmark, about four minutes on a CPU; leave the machine alone …")
        notebook_to_html(execute("benchmark", folder, {}), page, "Benchmark of the training")
    print(f"to read: {shown(page)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
