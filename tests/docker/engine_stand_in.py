#!/usr/bin/env python3
"""Stands in for the program docker in tests of the scripts: what a container would run, runs here, with another folder as /data.

Variables: STAND_IN_DATA (the folder), STAND_IN_RUNNING (names of running containers), STAND_IN_LOG (file for the calls),
STAND_IN_CUT_AT (how many bytes of what a shell writes come through; all, where it is not set).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def main() -> int:
    verb, *rest = sys.argv[1:]
    with Path(os.environ["STAND_IN_LOG"]).open("a") as log:
        log.write(" ".join(sys.argv[1:]) + "\n")
    if verb == "inspect":
        out = rest[-1] in running() if "State.Running" in rest[1] else "sha256:0"
        sys.stdout.write(f"{out}\n".lower())
    elif verb == "exec":
        container, *command = [one for one in rest if one != "-i"]
        if container not in running():
            sys.stderr.write(f"Error response from daemon: No such container: {container}\n")
            return 1
        return inside(command)
    elif verb == "run":
        return inside(["sh", *rest[rest.index("-c") :]])
    return 0


def running() -> list[str]:
    return os.environ["STAND_IN_RUNNING"].split()


def inside(command: list[str]) -> int:
    if command[0] == "pg_dump":
        sys.stdout.write("PGDMP")
    elif command[0] == "pg_restore":
        return int(sys.stdin.read() != "PGDMP")
    elif command[0] in ("sh", "tar"):
        here = [part.replace("/data", os.environ["STAND_IN_DATA"]) for part in command]
        done = subprocess.run(here, stdout=subprocess.PIPE, check=False)
        sent = os.environ.get("STAND_IN_CUT_AT")
        sys.stdout.buffer.write(done.stdout[: int(sent)] if sent else done.stdout)
        return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
