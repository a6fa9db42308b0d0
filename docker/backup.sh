#!/bin/sh
# Writes database and data folder of the running stack into a new folder: ./backup.sh FOLDER. Analyses may go on meanwhile.
set -eu
[ $# = 1 ] || { echo "usage: ./backup.sh FOLDER"; exit 2; }
mkdir -p "$1"
target=$(cd "$1" && pwd)
[ ! -e "$target/database.dump" ] || { echo "There is a backup in $target already." >&2; exit 1; }
cd "$(dirname "$0")"
engine=${ENGINE:-docker} compose=${COMPOSE:-docker compose}
umask 077

# The database first: what it names then is in the data folder, which is read afterwards.
"$engine" exec "$($compose ps -q db)" pg_dump -U hepamap -d hepamap -Fc > "$target/database.dump.part"
# What changes while tar reads it belongs to analyses that are not finished (status 1); they are done anew after a restore.
status=0
"$engine" exec "$($compose ps -q api)" tar -C /data --exclude=./scratch -cf - . > "$target/data.tar.part" || status=$?
[ "$status" -le 1 ] || exit "$status"
mv "$target/data.tar.part" "$target/data.tar"
mv "$target/database.dump.part" "$target/database.dump"
(cd "$target" && sha256sum database.dump data.tar > SHA256SUMS)
echo "Backup is in $target. Keep docker/.env, hepamap.env and secrets/ with it."
