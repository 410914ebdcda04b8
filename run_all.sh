#!/bin/sh
# One command for everything: sets up the environment once, then runs a study (python -m lib) or the tests.
# Plain POSIX, for the old bash of macOS and for `sh run_all.sh`.
set -eu

script=$0 # which may be a link into the checkout
while [ -L "$script" ]; do
    link=$(readlink "$script")
    case $link in /*) script=$link ;; *) script=$(dirname "$script")/$link ;; esac
done
root=$(cd "$(dirname "$script")" && pwd -P)
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 # whatever pip.conf says
unset PYTHONHOME PYTHONPATH CDPATH # which are about another Python, and other folders
export PYTHONNOUSERSITE=1   # nor do packages in ~/.local count, which conda's Python would see

usage() {
    cat <<'END'
Usage: ./run_all.sh [--study NAME] [--engine local|sequence|slurm] [--jobs N] [--time-budget MINUTES]
       ./run_all.sh test [words for pytest]

Sets up the environment in .venv (once), fetches the images, trains what is missing of a study, analyses it, and writes
figures, tables and HTML to outputs/<study>/, and after paper, replication and gates report/paper.pdf. Stopped at any
time, the same command goes on where it was.

  --study NAME           smoke (two minutes, no images needed), laptop (under an hour on a CPU), gates (hours of a
                         CPU), paper or replication (for a GPU, or days of a CPU), or a .yaml file of your own; without
                         it paper where there is a GPU, else laptop, and smoke where CIFAR-10 is neither in data/ nor to
                         be downloaded. benchmark is no study: it measures the speed of the training
  --engine sequence      train run after run in one process, which pays on a GPU that trains a run in seconds
  --engine slurm         train on a SLURM cluster, a run a job, with one GPU each where there are any; it is started where
                         sbatch is, which takes its SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT and the like
  --jobs N               runs at a time (default: one on each GPU, two on a CPU, with SLURM as many as it allows); not
                         for sequence, which always has one
  --time-budget MINUTES  start no run that would not finish in time

STUDY_DATA and STUDY_OUTPUTS name other folders for data/ and outputs/. CUDA_VISIBLE_DEVICES chooses GPUs, and with an
empty value the CPU.
END
}

fail() { echo "error: $*" >&2 && exit 1; }

find_python() {
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
            echo "$candidate" && return
        fi
    done
    fail "Python 3.11 to 3.14 is needed, and python3 here is $(python3 --version 2>&1): install one of these"
}

# Changes with the versions and the folder; kept in .venv when the set-up has succeeded.
stamp() { { echo "$root" && cat "$root/environment.yml" "$root/pyproject.toml"; } | cksum; }
is_set_up() { [ "$(cat "$root/.venv/complete" 2>/dev/null)" = "$(stamp)" ]; }

set_up() {
    cd "$root"
    if is_set_up; then return; fi
    exec 9>.venv.lock # so that two commands at once do not build one environment together
    if command -v flock >/dev/null; then flock 9; fi
    if is_set_up; then return; fi
    echo "setting up the environment in .venv (once; about 6 GB, some minutes) …"
    if conda=$(command -v mamba || command -v conda); then
        if [ -d .venv/conda-meta ]; then action=update; else action=create; fi
        "$conda" env $action --quiet --prefix .venv --file environment.yml ||
            fail "$conda could not make the environment from environment.yml; its message is above"
    else
        python=$(find_python) || exit 1
        "$python" -m venv .venv || fail "$python cannot make a virtual environment: install python3-venv"
        if .venv/bin/python -m pip config list </dev/null | grep -E '[.](target|prefix|root)='; then
            fail "these settings of pip put packages elsewhere than into .venv: take them out for the set-up"
        fi
        # the pip lines of environment.yml, which is the one list of versions
        sed -n 's/^      - //p' environment.yml | .venv/bin/python -m pip install --quiet -r /dev/stdin ||
            fail "the packages of environment.yml could not be installed; pip's message is above"
    fi
    stamp >.venv/complete
    echo "the environment is ready"
}

# What pip cannot install: packages of Debian or Ubuntu, where a program is missing and the user is root. Others are told
# when it is needed, or see the tests skip that need it.
set_up_system() {
    if command -v "$1" >/dev/null || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then return; fi
    echo "installing $2 (once) …"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $2; } \
        >"$root/.system.log" 2>&1 || echo "$2 could not be installed: .system.log says why"
}

case "${1:-}" in -h | --help) usage && exit ;; esac
(set_up) || exit 1
case "$*" in
*smoke* | *laptop* | *benchmark* | *.y*ml*) ;; # only the paper needs TeX
*)
    set_up_system latexmk "texlive-latex-base texlive-latex-recommended texlive-fonts-recommended latexmk poppler-utils"
    ;;
esac
if [ "${1:-}" != test ]; then exec "$root/.venv/bin/python" -P -m lib "$@"; fi
set_up_system chromium chromium
set_up_system slurmctld "slurm-wlm munge"
shift
cd "$root"
exec .venv/bin/python -m pytest -m "" -n auto --maxprocesses 4 --dist load --maxschedchunk 1 "$@" # slow tests as well
