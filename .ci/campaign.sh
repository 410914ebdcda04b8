#!/bin/sh
# Trains what a study lacks on a machine with a GPU but without Jupyter, network and history, and keeps the new runs in
# FOLDER/runs-*.tar, for `cat runs-*.tar | tar xif - -C outputs` at home. STUDY_COMMIT says which commit the copy is of:
#     STUDY_COMMIT=… STUDY_DATA=/where/the/images/are .ci/campaign.sh STUDY MINUTES FOLDER
set -eu
: "${STUDY_COMMIT:?}"
study=$1 minutes=$2
mkdir -p "$3"
folder=$(cd "$3" && pwd)
cd "$(dirname "$0")/.."
lists=$(mktemp -d) STUDY_OUTPUTS=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d)
export STUDY_OUTPUTS
mkdir "$STUDY_OUTPUTS/$study"
[ ! -d "outputs/$study/runs" ] || cp -r "outputs/$study/runs" "$STUDY_OUTPUTS/$study/"
touch "$lists/started"

keep() { # sixty runs in a file of ten megabytes, each file whole or not at all; the argument tells two at once apart
    find "$STUDY_OUTPUTS" -name summary.json -newer "$lists/started" -printf '%T@ %P\n' | sort -n |
        sed 's/^[^ ]* //; s|/summary.json$||' | split -l 60 - "$lists/$1."
    for list in "$lists/$1".*; do
        [ ! -e "$list" ] || tar cf "$folder/$1.part" --exclude=checkpoint.pt --exclude=.lock -C "$STUDY_OUTPUTS" -T "$list"
        [ ! -e "$list" ] || mv "$folder/$1.part" "$folder/runs-${list##*.}.tar"
    done
}

(while sleep 5; do keep now || :; done) >/dev/null 2>&1 &
status=0
python3 -m lib --study "$study" --engine sequence --time-budget "$minutes" || status=$?
kill $! || :
keep last || status=1
rm -f "$folder/now.part"
cp "$STUDY_OUTPUTS/$study/logs/sequence.log" "$folder/" 2>/dev/null || :
exit $status
