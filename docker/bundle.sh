#!/bin/sh
# Writes all that a machine without internet needs into a folder: ./bundle.sh FOLDER [--gpu]. The images must be there:
# docker compose build && docker compose pull db proxy
set -eu
[ $# -ge 1 ] || { echo "usage: ./bundle.sh FOLDER [--gpu]"; exit 2; }
mkdir -p "$1"
target=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
engine=${ENGINE:-docker}
fail() { echo "$*" >&2; exit 1; }
[ ! -e "$target/SHA256SUMS" ] || fail "There is a bundle in $target already."

# The images that compose would use: named by a variable, in .env, else as compose.yaml has it.
image() {
    eval "value=\${$1:-}"
    [ -n "$value" ] || value=$(sed -n "s/^$1=//p" "$here/.env" 2>/dev/null | tail -n 1)
    [ -n "$value" ] || value=$(sed -n "s/.*\${$1:-\(.*\)}\$/\1/p" "$here/compose.yaml" | head -n 1)
    [ -n "$value" ] || fail "Which image is $1? Run ./init.sh first."
    echo "$value"
}
hepamap=$(image HEPAMAP_IMAGE)
postgres=$(image POSTGRES_IMAGE)
nginx=$(image NGINX_IMAGE)
gpu=''
[ "${2:-}" != --gpu ] || gpu=$(image HEPAMAP_GPU_IMAGE)
for needed in "$hepamap" "$postgres" "$nginx" $gpu; do
    "$engine" image inspect "$needed" > /dev/null 2>&1 || fail "There is no image $needed here: build or pull it first" \
        "(docker compose build && docker compose pull db proxy; for GPUs after ./init.sh --gpu)."
done

mkdir -p "$target/images"
# A digest is known by the registry alone; an image that is loaded from a file would not be found by it.
save() {
    [ "$2" = "${2%@*}" ] || "$engine" tag "$2" "${2%@*}"
    "$engine" save -o "$target/images/$1.tar" "${2%@*}"
}
save hepamap "$hepamap"
save postgres "$postgres"
save nginx "$nginx"
{
    echo "HEPAMAP_IMAGE=${hepamap%@*}"
    echo "POSTGRES_IMAGE=${postgres%@*}"
    echo "NGINX_IMAGE=${nginx%@*}"
} > "$target/images.env"
if [ -n "$gpu" ]; then
    save hepamap-gpu "$gpu"
    echo "HEPAMAP_GPU_IMAGE=${gpu%@*}" >> "$target/images.env"
fi
for file in compose.yaml compose.gpu.yaml nginx.conf hepamap.env.example init.sh load.sh backup.sh restore.sh check-archive.sh; do
    cp "$here/$file" "$target/$file"
done
# The guide, and what it points to; the large picture is one of the checkout's own README.
cp -r "$here/../docs" "$target/docs"
rm -f "$target/docs/images/demo.jpg"
sed 's,](\([^):#][^):]*\)),](docs/\1),g' "$target/docs/deployment.md" > "$target/README.md"
cp -r "$here/../models" "$target/models"
cd "$target"
find . -type f ! -name SHA256SUMS -print0 | sort -z | xargs -0 sha256sum > SHA256SUMS
echo "The bundle is in $target: $(du -sh . | cut -f1). There: ./load.sh --slides FOLDER"
