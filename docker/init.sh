#!/bin/sh
# Prepares this folder for `docker compose up -d`: .env, hepamap.env, a database password, and a certificate for trying.
# May be run again: what is there is kept, and what is given on the command line is changed.
set -eu
cd "$(dirname "$0")"

usage() {
    echo "usage: ./init.sh --slides FOLDER [--name HOST] [--bind [ADDRESS:]PORT] [--gpu]"
    echo "  --slides   folder of the slides on this machine; mounted read-only as /slides"
    echo "  --name     name by which clients reach this machine, for the certificate (default: $(hostname))"
    echo "  --bind     address and port of the proxy (default: 443 on all addresses)"
    echo "  --gpu      the worker runs on an NVIDIA GPU"
    exit 2
}
fail() { echo "$1" >&2; exit 1; }

slides='' name='' bind='' gpu=''
while [ $# -gt 0 ]; do
    case $1 in
        --slides | --name | --bind)
            [ $# -ge 2 ] || usage
            case $1 in --slides) slides=$2 ;; --name) name=$2 ;; --bind) bind=$2 ;; esac
            shift 2 ;;
        --gpu) gpu=yes; shift ;;
        *) usage ;;
    esac
done

touch .env
chmod 600 .env
get() { sed -n "s/^$1=//p" .env; }
put() {
    grep -v "^$1=" .env > .env.new || true
    echo "$1=$2" >> .env.new
    chmod 600 .env.new
    mv .env.new .env
}
default() { [ -n "$(get "$1")" ] || put "$1" "$2"; }

[ -n "$slides" ] || [ -n "$(get SLIDES)" ] || usage
if [ -n "$slides" ]; then
    [ -d "$slides" ] || fail "There is no folder $slides: mount the share of the slides first."
    slides=$(cd "$slides" && pwd)
    put SLIDES "$slides"
    put SLIDES_GID "$(stat -c %g "$slides")"
fi
[ -z "$bind" ] || put HTTPS_BIND "$bind"
default HTTPS_BIND 443
default COMPOSE_PROJECT_NAME hepamap
default WORKER_CPUS "$(nproc)"
default WORKER_MEMORY 4G

# Images that an offline bundle brought, else those that are built from the checkout and have its version. The latter stand back where
# .env names an image of a registry.
files=compose.yaml
if [ -f images.env ]; then
    put HEPAMAP_GPU_IMAGE ''  # of the bundle before, perhaps
    while IFS='=' read -r key value; do put "$key" "$value"; done < images.env
    put MODELS ./models
elif [ -f ../pyproject.toml ]; then
    files=$files:compose.build.yaml
    version=$(sed -n 's/^version = "\(.*\)"$/\1/p' ../pyproject.toml)
    [ -n "$version" ] || fail "../pyproject.toml names no version: is this a checkout of hepamap?"
    case $(get HEPAMAP_IMAGE) in '' | hepamap:*) put HEPAMAP_IMAGE "hepamap:$version" ;; esac
    case $(get HEPAMAP_GPU_IMAGE) in '' | hepamap:*) put HEPAMAP_GPU_IMAGE "hepamap:$version-gpu" ;; esac
    put MODELS ../models
    put HEPAMAP_COMMIT "$(git -C .. describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null || echo unknown)"
fi
case $(get COMPOSE_FILE) in *compose.gpu.yaml*) gpu=yes ;; esac
if [ -n "$gpu" ]; then
    files=$files:compose.gpu.yaml
    put WORKER_VARIANT gpu
    image=$(get HEPAMAP_GPU_IMAGE)
    [ -n "$image" ] || fail "There is no image for GPUs in this bundle: write it with GPU=yes."
else
    image=$(get HEPAMAP_IMAGE)
    [ -n "$image" ] || fail "There is neither images.env nor a checkout around this folder: name HEPAMAP_IMAGE in .env."
fi
# With each version anew: server and worker of two versions do not go together.
put WORKER_IMAGE "$image"
put COMPOSE_FILE "$files"

[ -f hepamap.env ] || cp hepamap.env.example hepamap.env

# The folder is closed to other accounts; the files in it are readable for the accounts inside the containers.
mkdir -p secrets/callbacks
chmod 700 secrets
chmod 755 secrets/callbacks
if [ ! -s secrets/db_password ]; then
    # Without a line's end: PostgreSQL and hepamap must read the same.
    head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > secrets/db_password
fi
if [ ! -s secrets/tls.crt ] || [ ! -s secrets/tls.key ]; then
    name=${name:-$(hostname)}
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj "/CN=$name" \
        -addext "subjectAltName=DNS:$name,DNS:localhost,IP:127.0.0.1" \
        -keyout secrets/tls.key -out secrets/tls.crt 2>/dev/null
    echo "secrets/tls.crt is a certificate signed by itself, for trying: put your own in its place (tls.crt with its chain, tls.key)."
fi
# So are what compose mounts beside, and what the image is built from, however strict the umask was under which they were copied.
find nginx.conf "$(get MODELS)" \( -type d ! -perm -555 -o -type f ! -perm -444 \) -exec chmod a+rX {} +
chmod 644 secrets/db_password secrets/tls.crt secrets/tls.key
echo "Ready. Start with:       docker compose up -d"
echo "Then make the first key: docker compose exec api hepamap keys create admin --scope read --scope analyse --scope admin"
