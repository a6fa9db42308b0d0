"""Checks of the folders: data, slides, and what clients call them."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from hepamap.folders import nearest_existing
from hepamap.operations.findings import Finding, broken, ok, warning
from hepamap.settings import Settings

# SQLite needs locks and shared memory, which these promise and do not keep.
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "9p", "fuse.sshfs", "davfs"})


def data_folder(settings: Settings) -> Iterator[Finding]:
    """Whether the server can write where it keeps everything, and whether others can read it."""
    folder = settings.data_dir
    if not folder.exists():
        parent = next(parent for parent in folder.parents if parent.exists())
        if os.access(parent, os.W_OK):
            yield ok("data_folder", f"{folder} is not there yet; the server makes it when it starts.")
        else:
            yield broken(
                "data_folder",
                f"{folder} is not there, and this account may not make it in {parent}.",
                cure="Make it and give it to the server's account, or set HEPAMAP_DATA_DIR.",
            )
        return
    for part in (folder, settings.results_dir, settings.uploads_dir):
        if part.exists():
            yield _writable(part)
    if sys.platform != "win32" and stat.S_IMODE(folder.stat().st_mode) & stat.S_IRWXO:
        yield warning("data_folder", f"Every account of this machine can look into {folder}.", cure=f"Run: chmod o-rwx {folder}")
    kind = _file_system_of(folder)
    if kind in _NETWORK and not settings.database_url:
        yield warning(
            "data_folder",
            f"{folder} lies on a network share ({kind}), where SQLite can lose jobs.",
            cure="Move it to a local disk, or keep jobs in PostgreSQL (HEPAMAP_DATABASE_URL).",
        )


def disk(settings: Settings) -> Iterator[Finding]:
    """Whether there is room for results and uploads."""
    folder = nearest_existing(settings.data_dir)
    free, needed = shutil.disk_usage(folder).free, settings.min_free_bytes
    detail = f"{free / 1024**3:.1f} GiB are free at {folder}; {needed / 1024**3:.1f} GiB must stay free."
    cure = "Delete old results (hepamap gc), or set HEPAMAP_DATA_DIR to a larger disk."
    if free < needed:
        yield broken("disk", detail, cure=cure)
    elif free < needed + settings.max_upload_bytes:
        yield warning("disk", f"{detail} A slide of the largest size that may be uploaded would not fit.", cure=cure)
    else:
        yield ok("disk", detail)


def slide_roots(settings: Settings) -> Iterator[Finding]:
    """Whether the folders of slides are there and can be read."""
    if not settings.slide_roots:
        yield ok("slide_roots", "There are none; slides must be uploaded.")
    for root in settings.slide_roots:
        if not root.is_dir():
            yield broken(
                "slide_roots",
                f"{root} is not there, or no folder.",
                cure="Mount the share, or correct HEPAMAP_SLIDE_ROOTS.",
            )
        elif not os.access(root, os.R_OK | os.X_OK):
            yield broken(
                "slide_roots", f"{root} may not be read by this account.", cure="Give the server's account the right to."
            )
        else:
            yield ok("slide_roots", f"{root} can be read.")


def path_mappings(settings: Settings) -> Iterator[Finding]:
    """Whether what clients call their folders leads to folders of slides."""
    for prefix, folder in settings.path_mappings.items():
        if not any(folder.is_relative_to(root) for root in settings.slide_roots):
            yield broken(
                "path_mappings",
                f"{prefix} leads to {folder}, which lies in no slide root.",
                cure="Add the folder to HEPAMAP_SLIDE_ROOTS, or correct HEPAMAP_PATH_MAPPINGS.",
            )
        elif not folder.is_dir():
            yield broken(
                "path_mappings", f"{prefix} leads to {folder}, which is not there.", cure="Correct HEPAMAP_PATH_MAPPINGS."
            )
        else:
            yield ok("path_mappings", f"{prefix} leads to {folder}.")


def _writable(folder: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        return broken(
            "data_folder",
            f"{folder} cannot be written: {error.strerror}.",
            cure="Give it to the server's account (chown), and check that the disk is neither full nor read-only.",
        )
    return ok("data_folder", f"{folder} can be written.")


def _file_system_of(folder: Path) -> str:
    mounts = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else ""
