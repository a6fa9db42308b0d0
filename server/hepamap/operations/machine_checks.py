"""Checks of the machine: GPU and clock."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from hepamap.folders import nearest_existing
from hepamap.operations.findings import Finding, broken, ok, warning
from hepamap.settings import Settings

# A process of its own: loading TensorFlow takes seconds and memory, and a broken driver may take the process along.
_COUNT_GPUS = """
import json, tensorflow as tf
print(json.dumps([device.name for device in tf.config.list_physical_devices("GPU")]))
"""
_TIMEOUT_S = 120.0
_CLOCK_TOLERANCE_S = 5.0


def gpu(settings: Settings) -> Iterator[Finding]:
    """Whether the networks can use the GPU that the machine has."""
    if not _has_gpu():
        yield ok("gpu", "This machine has no NVIDIA GPU; the networks run on its processor.")
        return
    try:
        done = subprocess.run([sys.executable, "-c", _COUNT_GPUS], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError):
        yield broken(
            "gpu",
            "TensorFlow cannot be started on this machine.",
            cure='Run: python -c "import tensorflow" and read its last lines.',
        )
        return
    if found:
        yield ok("gpu", f"TensorFlow can use {len(found)} GPU(s).")
    else:
        yield warning(
            "gpu",
            "The machine has an NVIDIA GPU that TensorFlow cannot use; the networks run on the processor, many times slower.",
            cure="Install hepamap[gpu] and a driver of NVIDIA that fits it; in a container, pass the GPU through.",
        )


def clock(settings: Settings) -> Iterator[Finding]:
    """Whether the clock is set by a time server, and agrees with that of the disk."""
    folder = nearest_existing(settings.data_dir)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        apart_s = Path(file.name).stat().st_mtime - time.time()
    if abs(apart_s) > _CLOCK_TOLERANCE_S:
        yield warning(
            "clock",
            f"The clock of this machine and that of the disk of {folder} are {abs(apart_s):.0f} s apart.",
            cure="Set both by the same time server (chrony, systemd-timesyncd).",
        )
    if _synchronised() is False:
        yield warning(
            "clock",
            "The clock of this machine is set by no time server; expiry of keys and the times of results depend on it.",
            cure="Run a time service: timedatectl set-ntp true.",
        )
    else:
        yield ok("clock", f"It is {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} UTC.")


def _has_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None or any(Path("/dev").glob("nvidia[0-9]*"))


def _synchronised() -> bool | None:
    """What systemd says; None where there is none, as in a container, whose clock is the machine's."""
    command = shutil.which("timedatectl")
    if command is None:
        return None
    done = subprocess.run([command, "show", "-p", "NTPSynchronized", "--value"], capture_output=True, text=True, check=False)
    return {"yes": True, "no": False}.get(done.stdout.strip())
