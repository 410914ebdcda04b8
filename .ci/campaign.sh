#!/bin/sh
# Trains a study on a machine with a GPU but without Jupyter, network and history, and keeps all finished runs in
# FOLDER/runs.tar, for `tar xf runs.tar -C outputs` at home:
#     STUDY_COMMIT=$(git rev-parse HEAD) STUDY_DATA=/where/the/images/are .ci/campaign.sh STUDY MINUTES FOLDER
set -eu
study=$1 minutes=$2 folder=$3
cd "$(dirname "$0")/.."
STUDY_OUTPUTS=$(mktemp -d) && export STUDY_OUTPUTS

keep() { # whole or not at all, however this ends
    tar cf "$folder/runs.part" -C "$STUDY_OUTPUTS" --exclude=checkpoint.pt --exclude='*.partial*' --exclude=.lock . &&
        mv "$folder/runs.part" "$folder/runs.tar"
}

(while sleep 5; do keep || true; done) &
status=0
python3 -m lib --study "$study" --engine sequence --time-budget "$minutes" || status=$?
kill $!
keep
exit $status
