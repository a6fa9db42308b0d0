"""Folders that appear whole, or stay what they were."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


def put_in_place(made: Path, folder: Path) -> None:
    """Rename a finished folder to the name that it is to have.

    What has that name steps aside first and goes only when the new one is in place: whoever is killed in between loses
    neither. Whether it may go is asked by the caller.

    Args:
        made: the new folder, on the same disk.
        folder: its name from now on.

    Raises:
        OSError: it cannot be renamed; what was there is there again.
    """
    if not folder.exists():
        os.rename(made, folder)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name[:64]}-", suffix=".old", dir=folder.parent))
    old = aside / folder.name
    try:
        os.rename(folder, old)
        os.rename(made, folder)
    except OSError:
        if old.exists():
            os.rename(old, folder)
        aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)


def is_anchored(folder: Path) -> bool:
    """Whether a folder cannot be renamed away: a mounted disk, or the folder that one is in."""
    return os.path.ismount(folder) or folder.resolve() == Path.cwd()
