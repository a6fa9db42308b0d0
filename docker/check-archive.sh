#!/bin/sh
# Whether a tar archive is whole: ./check-archive.sh FILE. Called by backup.sh and restore.sh.
set -eu
fail() { echo "$1 is cut or damaged: it is no backup." >&2; exit 1; }
[ -s "$1" ] || fail "$1"
tar -tf "$1" > /dev/null || fail "$1"
# One that was cut between two files can be listed without complaint, but lacks the zeros at its end.
[ "$(tail -c 1024 "$1" | tr -d '\0' | wc -c)" -eq 0 ] || fail "$1"
