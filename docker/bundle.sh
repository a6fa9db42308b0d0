#!/bin/sh
# Writes all that a machine without internet needs into a folder: ./bundle.sh FOLDER [--gpu]. The images must be there:
# docker compose build && docker compose pull db proxy
set -eu
[ $# -ge 1 ] || { echo "usage: ./bundle.sh FOLDER [--gpu]"; exit 2; }
mkdir -p "$1"
target=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
engine=${ENGINE:-docker}
[ ! -e "$target/SHA256SUMS" ] || { echo "There is a bundle in $target already." >&2; exit 1; }

hepamap=${HEPAMAP_IMAGE:-hepamap:0.1.0}
postgres=${POSTGRES_IMAGE:-docker.io/library/postgres:17.10-bookworm}
nginx=${NGINX_IMAGE:-docker.io/library/nginx:1.28.0-bookworm}
gpu=''
[ "${2:-}" != --gpu ] || gpu=${HEPAMAP_GPU_IMAGE:-hepamap:0.1.0-gpu}

mkdir -p "$target/images"
save() { "$engine" save -o "$target/images/$1.tar" "$2"; }
save hepamap "$hepamap"
save postgres "$postgres"
save nginx "$nginx"
{
    echo "HEPAMAP_IMAGE=$hepamap"
    echo "POSTGRES_IMAGE=$postgres"
    echo "NGINX_IMAGE=$nginx"
} > "$target/images.env"
if [ -n "$gpu" ]; then
    save hepamap-gpu "$gpu"
    echo "HEPAMAP_GPU_IMAGE=$gpu" >> "$target/images.env"
fi
for file in compose.yaml compose.gpu.yaml nginx.conf hepamap.env.example init.sh load.sh backup.sh restore.sh; do
    cp "$here/$file" "$target/$file"
done
cp "$here/../docs/deployment.md" "$target/README.md"
cp -r "$here/../models" "$target/models"
cd "$target"
find . -type f ! -name SHA256SUMS -print0 | sort -z | xargs -0 sha256sum > SHA256SUMS
echo "The bundle is in $target: $(du -sh . | cut -f1). There: ./load.sh --slides FOLDER"
