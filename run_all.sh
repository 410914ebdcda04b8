#!/usr/bin/env bash
# One command for everything: sets up the environment once, then runs a study (python -m lib) or the tests.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'END'
Usage: ./run_all.sh [--study NAME] [--engine local|slurm] [--jobs N] [--time-budget MINUTES] [--dry-run]
       ./run_all.sh test
       ./run_all.sh --help

Sets up the environment in .venv (once), fetches the images, trains what is missing of a study, analyses it and writes
figures, tables and HTML to outputs/<study>/, and the paper to report/paper.pdf. Stopped at any time, the same command goes on where it was.

  --study NAME           smoke (two minutes, no images needed), laptop (an hour or two on a CPU), paper (a GPU), or a .yaml
                         file of your own; without it paper where there is a GPU, else laptop, and smoke where CIFAR-10
                         is neither in data/ nor to be downloaded. benchmark is no study: it measures the training's speed
  --engine slurm         train on a SLURM cluster, a run a job with one GPU where there are any; to be started where
                         sbatch is, which takes its SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT and the like
  --jobs N               runs at a time (default: two on a CPU, and as many on each GPU as measured to be fastest; with
                         SLURM as many as it allows)
  --time-budget MINUTES  start no run that would not finish in time
  --dry-run              list the missing runs and the time they would take
  test                   run all tests; further words go to pytest

STUDY_DATA and STUDY_OUTPUTS name other folders for data/ and outputs/. CUDA_VISIBLE_DEVICES chooses GPUs, and with an
empty value the CPU.
END
}

fail() { echo "error: $*" >&2; exit 1; }

# The pip lines of environment.yml, which is the one list of versions.
requirements() { sed -n 's/^      - //p' environment.yml; }

find_python() {
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "Python 3.11 to 3.14 is needed, and python3 here is $(python3 --version 2>&1 || true): install one of these"
}

# Changes with the versions and the folder; kept in .venv when the set-up has succeeded.
stamp() { { echo "$PWD"; cat environment.yml pyproject.toml; } | cksum; }

set_up_conda() {
    local conda=$1 action=create
    if [ -d .venv/conda-meta ]; then action=update; fi
    "$conda" env "$action" --quiet --prefix .venv --file environment.yml
}

set_up_venv() {
    local python
    python=$(find_python) || return 1
    "$python" -m venv .venv || fail "$python cannot make a virtual environment: install its venv package (python3-venv)"
    requirements | .venv/bin/python -m pip install --quiet --disable-pip-version-check -r /dev/stdin ||
        fail "the packages of environment.yml could not be installed; pip's message is above"
}

set_up() {
    cd "$root"
    if [ "$(cat .venv/complete 2>/dev/null)" = "$(stamp)" ]; then return; fi
    exec 9>.venv.lock # so that two commands at once do not build one environment together
    if command -v flock >/dev/null; then flock 9; fi
    if [ "$(cat .venv/complete 2>/dev/null)" = "$(stamp)" ]; then return; fi
    echo "setting up the environment in .venv (once; torch alone is several GB) …"
    local conda
    if conda=$(command -v mamba || command -v conda); then
        set_up_conda "$conda" || fail "$conda could not make the environment from environment.yml; its message is above"
    else
        set_up_venv
    fi
    stamp >.venv/complete
}

# What pip cannot install. Where a program is missing, root on Debian or Ubuntu gets its packages; others are told what to
# install, or see the tests skip that need it.
set_up_system() {
    local what=$1 programs=$2 packages=$3 program missing=""
    for program in $programs; do
        if ! command -v "$program" >/dev/null; then missing=$program; fi
    done
    if [ -z "$missing" ] || [ "$EUID" != 0 ] || ! command -v apt-get >/dev/null; then return; fi
    echo "installing $what (once) …"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # packages are several words
    { apt-get update && apt-get install -y --no-install-recommends $packages; } >"$root/.system.log" 2>&1 || return 0
    rm -f "$root/.system.log"
}

set_up_slurm() {
    if "$root/.venv/bin/python" -c 'import submitit' 2>/dev/null; then return; fi
    "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "$root[slurm]" ||
        fail "submitit, which --engine slurm needs, could not be installed; pip's message is above"
}

set_up_tex() {
    set_up_system "TeX for the paper" "latexmk pdfinfo" \
        "texlive-latex-base texlive-latex-recommended texlive-fonts-recommended latexmk poppler-utils"
}

set_up_test_programs() {
    set_up_system "Chromium and SLURM for the tests" "chromium slurmctld munged" "chromium slurm-wlm munge"
}

case "${1:-}" in
-h | --help)
    usage
    ;;
test)
    shift
    (set_up)
    (set_up_tex)
    (set_up_test_programs)
    (set_up_slurm)
    cd "$root"
    # a file of tests to a worker, for its tests share what is slow to make
    exec .venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
    ;;
*)
    (set_up)
    case " $* " in *" --engine slurm "* | *" --engine=slurm "*) (set_up_slurm) ;; esac
    case " $* " in
    *" smoke "* | *" benchmark "* | *" --dry-run "*) ;;
    *) (set_up_tex) ;;
    esac
    PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$root/.venv/bin/python" -m lib "$@"
    ;;
esac
