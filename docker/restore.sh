#!/bin/sh
# Puts a backup in place of what the stack has now, which is lost: ./restore.sh FOLDER.
set -eu
[ $# = 1 ] || { echo "usage: ./restore.sh FOLDER"; exit 2; }
source=$(cd "$1" && pwd)
cd "$(dirname "$0")"
engine=${ENGINE:-docker} compose=${COMPOSE:-docker compose}
# Nothing is removed before it is sure that the backup can be read; its sums only say that it is as it was written.
(cd "$source" && sha256sum --quiet -c SHA256SUMS)
./check-archive.sh "$source/data.tar"

$compose up -d db
db=$($compose ps -q db)
until "$engine" exec "$db" pg_isready -q -U hepamap -d postgres -h 127.0.0.1; do sleep 1; done
"$engine" exec -i "$db" pg_restore --list < "$source/database.dump" > /dev/null
# Made but not started: nobody works on the data while it is replaced.
$compose up --no-start
$compose stop proxy worker api
"$engine" exec "$db" dropdb -U hepamap --if-exists --force --maintenance-db=postgres hepamap
"$engine" exec "$db" createdb -U hepamap --maintenance-db=postgres hepamap
"$engine" exec -i "$db" pg_restore -U hepamap -d hepamap --exit-on-error < "$source/database.dump"
image=$("$engine" inspect --format '{{.Image}}' "$($compose ps -q -a api 2>/dev/null || $compose ps -q api)")
"$engine" run --rm -i --network none --cap-drop ALL --volumes-from "$($compose ps -q -a api 2>/dev/null || $compose ps -q api)" \
    --entrypoint sh "$image" -c 'find /data -mindepth 1 -delete && tar -C /data -xf -' < "$source/data.tar"
$compose up -d
echo "The backup in $source is in place."
