"""What is written down about each upload that comes in several requests: one small file in its folder."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from hepamap.folders import sync_folder

_log = structlog.stdlib.get_logger(__name__)

_INFO_NAME = ".upload.json"
# Whose record was complained of in the log: all are read for each upload that begins, and one bad one would fill it.
_REPORTED: set[str] = set()


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload as it stood when it was read."""

    id: str
    name: str
    """File name, made harmless."""
    length: int
    """Bytes that it will have."""
    offset: int
    """Bytes that are safe on the disk."""
    expires_at: datetime
    metadata: str = ""
    """As the client sent it."""
    sha256: str | None = None
    """What the whole must have, hex; None: the client did not say."""
    slide: str | None = None
    """The slide, relative to the upload's folder; None until it is whole and unpacked."""

    @property
    def complete(self) -> bool:
        """Whether all of it has arrived."""
        return self.offset == self.length

    def to_json(self) -> dict[str, Any]:
        """As stored."""
        return {**asdict(self), "expires_at": self.expires_at.isoformat()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Upload:
        """The opposite of `to_json`; what a newer version of hepamap wrote besides is not looked at.

        Raises:
            ValueError, TypeError, KeyError: it is no record of an upload.
        """
        known = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        upload = cls(**{**known, "expires_at": datetime.fromisoformat(data["expires_at"])})
        numbers = isinstance(upload.length, int) and isinstance(upload.offset, int)
        if not numbers or upload.expires_at.tzinfo is None:
            raise ValueError("a number or a time that is none")
        return upload


class UploadRecords:
    """The records of the uploads in a folder; may be used by many threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._all = folder

    def folder_of(self, upload_id: str) -> Path:
        """Where an upload lies."""
        return self._all / upload_id

    def all(self) -> Iterator[Upload]:
        """All uploads; one whose record says nothing holds up no other."""
        for path in self._all.glob(f"*/{_INFO_NAME}"):
            upload = self.read(path.parent.name)
            if upload is not None:
                yield upload

    def read(self, upload_id: str) -> Upload | None:
        """The upload of an id; None also where its record cannot be understood: its bytes still count, as its files are there."""
        try:
            # Whoever writes another spelling of an id, or a path, gets nothing.
            if str(uuid.UUID(upload_id)) != upload_id:
                return None
            text = (self.folder_of(upload_id) / _INFO_NAME).read_text("utf-8")
        except (ValueError, FileNotFoundError):
            return None
        try:
            return Upload.from_json(json.loads(text))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            _report(upload_id, error)
            return None

    def save(self, upload: Upload) -> None:
        """Write a record, and bring it to the disk with all names in the folder of its upload."""
        path = self.folder_of(upload.id) / _INFO_NAME
        new = path.with_suffix(".new")
        with new.open("w", encoding="utf-8") as file:
            json.dump(upload.to_json(), file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        sync_folder(path.parent)

    def remove(self, upload_id: str) -> None:
        """Forget an upload, by whoever holds its lock."""
        folder = self.folder_of(upload_id)
        # First: once the lock's file has gone others may lock a new one, and must not find an upload that is going.
        with suppress(OSError):
            (folder / _INFO_NAME).unlink()
        shutil.rmtree(folder, ignore_errors=True)


def _report(upload_id: str, error: Exception) -> None:
    if upload_id not in _REPORTED:
        _REPORTED.add(upload_id)
        _log.warning("upload_record_not_understood", upload=upload_id, reason=type(error).__name__)
