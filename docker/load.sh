#!/bin/sh
# On a machine without internet: verifies this bundle and loads its images. With the options of ./init.sh it prepares and starts the
# stack too: ./load.sh --slides FOLDER. For podman: ENGINE=podman COMPOSE=podman-compose ./load.sh …
set -eu
cd "$(dirname "$0")"
engine=${ENGINE:-docker} compose=${COMPOSE:-docker compose}
sha256sum --quiet -c SHA256SUMS || { echo "The bundle is damaged: copy it again." >&2; exit 1; }
for image in images/*.tar; do
    "$engine" load -q -i "$image"
done
[ $# -gt 0 ] || { echo "Loaded. Go on with ./init.sh --slides FOLDER"; exit 0; }
./init.sh "$@"
$compose up -d
