"""The words after run_all.sh, as checked options."""

import argparse


def read_options(arguments=None):
    """study, engine, jobs, time_budget (minutes) and dry_run, None where not given; a wrong word ends the command."""
    # ./run_all.sh --help explains the options without needing the environment
    parser = argparse.ArgumentParser(prog="./run_all.sh", add_help=False, allow_abbrev=False)
    parser.add_argument("--study", metavar="NAME")
    parser.add_argument("--engine", choices=("local", "slurm"), default="local")
    parser.add_argument("--jobs", type=_positive(int), metavar="N")
    parser.add_argument("--time-budget", type=_positive(float), metavar="MINUTES")
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args(arguments)
    if options.engine == "slurm" and not options.study:
        parser.error("--engine slurm needs --study: this machine does not tell which study suits the nodes")
    if options.engine == "slurm" and options.time_budget:
        parser.error("--engine slurm takes no --time-budget: SBATCH_TIMELIMIT limits each job")
    return options


def _positive(kind):
    def convert(text):
        value = kind(text)
        if not value > 0:
            raise ValueError
        return value

    convert.__name__ = f"positive {kind.__name__}"
    return convert
