"""Which database a data folder belongs to: what nobody refers to is a stray only for the database that it is of.

Both have one random id, the folder in a file. A server that was given another database, or a new one, so finds a folder of
somebody else's, where every result would look like what a crash left.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from sqlalchemy import select

from hepamap.folders import sync_folder
from hepamap.jobs.sessions import Sessions
from hepamap.jobs.tables import ComputationRow, InstallationRow

MARK_NAME = "database.id"
"""The file in the data folder."""


def belongs(sessions: Sessions, data: Path, *folders: Path) -> bool:
    """Whether a data folder is this database's; one that has no mark yet is, if that is beyond doubt.

    Args:
        sessions: the database.
        data: the data folder, which has the mark.
        folders: what the database's jobs leave behind: results, uploads.

    Raises:
        JobStoreError: the database does not answer.
        OSError: the mark cannot be read.
    """
    mark = _mark_in(data)
    if mark is not None:
        return mark == _name_of(sessions).id
    return _is_its_own(sessions, {path.name for folder in folders if folder.is_dir() for path in folder.iterdir()})


def bind(sessions: Sessions, data: Path) -> None:
    """Write the mark: from now on the data folder is this database's, and no other's.

    Raises:
        JobStoreError: the database does not answer.
        OSError: it cannot be written.
    """
    name = _name_of(sessions).id
    if _mark_in(data) == name:
        return
    # Whole or not at all: half a mark would be another database's.
    partial = data / f".{MARK_NAME}.{uuid.uuid4().hex}.partial"
    try:
        with partial.open("x") as file:
            file.write(f"{name}\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(data / MARK_NAME)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(data)


def _mark_in(data: Path) -> str | None:
    try:
        return (data / MARK_NAME).read_text(errors="replace").strip()
    except FileNotFoundError:
        return None


def _name_of(sessions: Sessions) -> InstallationRow:
    with sessions.reading() as session:
        name = session.scalars(select(InstallationRow)).one()
        session.expunge(name)
        return name


def _is_its_own(sessions: Sessions, names: set[str]) -> bool:
    """Whether folders of these names, which have no mark, are this database's.

    They are if it knows all of them; or one from before it had an id, so that it has been here for longer than there are
    marks. What it has made since then says nothing: a wrong database leaves its results here as well.
    """
    made_at = _name_of(sessions).made_at
    unknown = set(names)
    with sessions.reading() as session:
        rows = session.execute(select(ComputationRow.result_location, ComputationRow.upload, ComputationRow.created_at))
        for location, upload, created_at in rows:
            if created_at < made_at and not names.isdisjoint((location, upload)):
                return True
            unknown -= {location, upload}
    return not unknown
