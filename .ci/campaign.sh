#!/bin/sh
# Trains what a study lacks on a machine with a GPU but without Jupyter, network and history, and keeps the new runs in
# FOLDER/runs-*.tar, for `cat runs-*.tar | tar xif - -C outputs` at home. STUDY_COMMIT says which commit the copy is of:
#     STUDY_COMMIT=… STUDY_DATA=/where/the/images/are .ci/campaign.sh STUDY MINUTES FOLDER
set -eu
: "${STUDY_COMMIT:?}"
study=$1 minutes=$2 now=$(date +%s)
mkdir -p "$3"
folder=$(cd "$3" && pwd)
cd "$(dirname "$0")/.."
work=$(mktemp -d)
memory=$(df -Pk /dev/shm 2>/dev/null | awk 'END { print $4 }') # in KiB; a checkpoint there costs no time
if [ "${memory:-0}" -gt 4000000 ]; then STUDY_OUTPUTS=$(mktemp -d -p /dev/shm); else STUDY_OUTPUTS=$work/outputs; fi
export STUDY_OUTPUTS
mkdir -p "$STUDY_OUTPUTS/$study"
[ ! -d "outputs/$study/runs" ] || cp -r "outputs/$study/runs" "$STUDY_OUTPUTS/$study/"
touch "$work/started"

keep() { # sixty runs in a file of ten megabytes, each file whole or not at all; the argument tells two at once apart
    find "$STUDY_OUTPUTS" -name summary.json -newer "$work/started" -printf '%T@ %P\n' | sort -n |
        sed 's/^[^ ]* //; s|/summary.json$||' | split -l 60 - "$work/$1." || return 1
    for list in "$work/$1".*; do
        [ -e "$list" ] || return 0 # no run yet
        tar cf "$folder/$1.part" --exclude=checkpoint.pt --exclude=.lock -C "$STUDY_OUTPUTS" -T "$list" &&
            mv "$folder/$1.part" "$folder/runs-$now-${list##*.}.tar" || return 1
    done
}

(while sleep 5; do keep now || :; done) >/dev/null 2>&1 &
status=0
python3 -m lib --study "$study" --engine sequence --time-budget "$minutes" || status=$?
kill $! || :
keep last || status=1
cp "$STUDY_OUTPUTS/$study/logs/sequence.log" "$folder/" 2>/dev/null || :
rm -rf "$folder/now.part" "$STUDY_OUTPUTS" "$work"
exit $status
