#!/bin/sh
# Writes database and data folder of the running stack into a new folder: ./backup.sh FOLDER. Analyses may go on meanwhile.
set -eu
[ $# = 1 ] || { echo "usage: ./backup.sh FOLDER"; exit 2; }
mkdir -p "$1"
target=$(cd "$1" && pwd)
fail() { echo "$1" >&2; exit 1; }
[ ! -e "$target/database.dump" ] || fail "There is a backup in $target already."
cd "$(dirname "$0")"
engine=${ENGINE:-docker} compose=${COMPOSE:-docker compose}
umask 077

# Id of a service's container. What is stopped has an id too, for some engines, but nothing can be read from it.
running() {
    id=$($compose ps -q "$1")
    [ -n "$id" ] && [ "$("$engine" inspect --format '{{.State.Running}}' "$id")" = true ] ||
        fail "The service $1 does not run, so nothing was backed up. Start it: docker compose up -d"
    echo "$id"
}
db=$(running db)
api=$(running api)

# The database first: what it names then is in the data folder, which is read afterwards.
"$engine" exec "$db" pg_dump -U hepamap -d hepamap -Fc > "$target/database.dump.part"
# What changes while tar reads it belongs to analyses that are not finished (tar's status 1); they are done anew after a restore. Asked
# inside, since the engine itself says 1 where it could not run anything.
"$engine" exec "$api" sh -c 'tar -C /data --exclude=./scratch -cf - .; test $? -le 1' > "$target/data.tar.part"
"$engine" exec -i "$db" pg_restore --list < "$target/database.dump.part" > /dev/null
./check-archive.sh "$target/data.tar.part"
mv "$target/data.tar.part" "$target/data.tar"
mv "$target/database.dump.part" "$target/database.dump"
(cd "$target" && sha256sum database.dump data.tar > SHA256SUMS)
echo "Backup is in $target. Keep docker/.env, hepamap.env and secrets/ with it."
