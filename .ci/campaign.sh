#!/bin/sh
# Trains a study on a machine with a GPU but without Jupyter, network and history, and keeps all finished runs in
# FOLDER/runs.tar, for `tar xf runs.tar -C outputs` at home. STUDY_COMMIT says which commit the copy is of:
#     STUDY_COMMIT=… STUDY_DATA=/where/the/images/are .ci/campaign.sh STUDY MINUTES FOLDER
set -eu
: "${STUDY_COMMIT:?}"
study=$1 minutes=$2
mkdir -p "$3"
folder=$(cd "$3" && pwd)
cd "$(dirname "$0")/.."
STUDY_OUTPUTS=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d)
export STUDY_OUTPUTS

keep() { # whole or not at all, however this ends; the argument tells two at once apart
    tar cf "$folder/$1.part" -C "$STUDY_OUTPUTS" --exclude=checkpoint.pt --exclude='*.partial*' --exclude=.lock . &&
        mv "$folder/$1.part" "$folder/runs.tar"
}

(while sleep 5; do keep now || :; done) >/dev/null 2>&1 &
status=0
python3 -m lib --study "$study" --engine sequence --time-budget "$minutes" || status=$?
kill $! || :
keep last || status=1
exit $status
