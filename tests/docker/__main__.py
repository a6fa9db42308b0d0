"""Builds the images, starts the stack of docker/, uses it, breaks it, and puts the machine back to where it was.

    python -m tests.docker               all but the bundle
    python -m tests.docker --bundle      starts it from an offline bundle, as on a machine without internet

Needs root, apt and a Debian machine; where that is missing it says so and ends with status 0. There is no Docker in it: base
images are made from Debian packages, and podman runs what docker-compose 1.29 tells it. docs/deployment.md says what that
leaves open.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path

from tests.docker import checks
from tests.docker.engine import CannotRun, Engine, require_tools
from tests.docker.lint import lint
from tests.docker.stack import COMMIT, HEPAMAP, NGINX, POSTGRES, PYTHON, REPOSITORY, Stack

_FOLDER = REPOSITORY / "build/docker-test"
_STARTED = time.monotonic()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", action="store_true", help="write an offline bundle, forget the images, start from the bundle")
    bundle = parser.parse_args().bundle
    try:
        require_tools()
    except CannotRun as reason:
        say(f"SKIPPED: the stack of docker/ was not tested: {reason}.")
        return 0
    say("tools")
    _FOLDER.mkdir(parents=True, exist_ok=True)
    say(lint(_FOLDER))
    engine = Engine(_FOLDER, say)
    failed = False
    try:
        build(engine)
        run(engine, bundle=bundle)
    except Exception:
        traceback.print_exc()
        failed = True
    finally:
        engine.close()
    left = engine.leftovers()
    say(f"left on this machine: {left or 'nothing'}")
    say("FAILED" if failed or left else "PASSED")
    return int(bool(failed or left))


def build(engine: Engine) -> None:
    """All images."""
    engine.make_bases()
    arguments = {"PYTHON_IMAGE": PYTHON, "HEPAMAP_COMMIT": COMMIT}
    engine.build(HEPAMAP, REPOSITORY / "docker/Dockerfile", REPOSITORY, arguments)
    say(f"{HEPAMAP}: {int(engine.podman('image', 'inspect', HEPAMAP, '--format', '{{.Size}}')) / 1e9:.2f} GB")


def run(engine: Engine, *, bundle: bool) -> None:
    """The stack, from init.sh to down."""
    engine.start()
    slides = engine.folder / "slides"
    paint = [
        sys.executable,
        "-m",
        "hepamap",
        "phantom",
        str(slides / "slide.tif"),
        "--width-mm",
        "2.4",
        "--height-mm",
        "1.8",
        "--seed",
        "7",
    ]
    subprocess.run(paint, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    say("slide painted")
    stack = Stack(engine, _FOLDER / "site", slides)
    shutil.rmtree(stack.folder, ignore_errors=True)
    if bundle:
        start_from_bundle(engine, stack)
    else:
        stack.make_folder()
        stack.prepare()
    engine.drive_health_checks(stack.project)
    try:
        use(stack)
    except Exception:
        say(stack.logs())
        raise
    finally:
        try:
            stack.compose("down", "-v", "-t", "20")
        finally:
            say("down")
            engine.podman("rm", "-a", "-f", "-t", "1", check=False)
            engine.podman("volume", "prune", "-f", check=False)
            shutil.rmtree(stack.folder, ignore_errors=True)


def start_from_bundle(engine: Engine, stack: Stack) -> None:
    """Write a bundle, forget the images, load them again."""
    images = {"HEPAMAP_IMAGE": HEPAMAP, "POSTGRES_IMAGE": POSTGRES, "NGINX_IMAGE": NGINX}
    before = engine.environment
    engine.environment = {**before, **images, "ENGINE": "podman"}
    engine.run([str(REPOSITORY / "docker/bundle.sh"), str(stack.folder)], timeout_s=600)
    engine.environment = before
    say("bundle written")
    engine.podman("rmi", "-f", *images.values())
    stack.script("load.sh", timeout_s=600)
    say("bundle verified and loaded")
    shutil.rmtree(stack.folder / "images")
    stack.prepare()


def use(stack: Stack) -> None:
    """Every check, in an order in which each leaves the stack as the next one needs it."""
    stack.compose("up", "-d")
    say("compose up")
    say(f"ready {stack.wait_ready():.1f} s later")
    say(checks.closed_without_key(stack))
    key = stack.make_key("admin", "read", "analyse", "admin")
    say(checks.hardened(stack))
    say(checks.separated(stack))
    first, seen = checks.analysed_live(stack, key)
    say(seen)
    say(checks.uploaded(stack, key, first))
    say(checks.survives_kills(stack, key, first))
    peaks = ", ".join(f"{name} {peak / 2**20:.0f} MiB" for name, peak in stack.memory_peaks().items())
    say(f"most memory since the kills: {peaks}")
    say(checks.restored(stack, key, first, Path(stack.engine.folder / "backup")))
    say(checks.addresses_believed(stack))


def say(text: str) -> None:
    """One line with the time since the start."""
    print(f"[{time.monotonic() - _STARTED:6.1f} s] {text}", flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
