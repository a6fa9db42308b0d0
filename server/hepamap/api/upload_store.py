"""Uploads that come in several requests: one folder each, with what has arrived and a file that says how much of it is safe.

The folder of an upload holds `.upload.json` (what it is, and the offset), `.data` (what has arrived) and, once it is whole,
`files` with the slide. The offset is written after the data has reached the disk, so it is true after any crash; bytes beyond
it are cut off when the client goes on.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from hepamap.api.checksums import Checksum
from hepamap.api.disk import writing
from hepamap.api.file_names import safe_name
from hepamap.api.upload_errors import (
    ArchiveError,
    UploadChecksumError,
    UploadExpiredError,
    UploadIncompleteError,
    UploadLockedError,
    UploadNotFoundError,
    UploadOffsetError,
    UploadRequestError,
)
from hepamap.api.upload_records import Upload, UploadRecords
from hepamap.api.upload_room import RoomWatch, UploadLimits, require_room, upload_too_large
from hepamap.api.upload_slides import DATA_NAME, FILES_NAME, copy_files, make_files
from hepamap.folders import make_folder
from hepamap.jobs.processes import exclusive_lock

# How much a crash of the machine may cost, bytes; each time the disk is waited for.
_SAFE_EVERY_BYTES = 64 * 1024**2
# How long one who asks for an analysis waits for another one who does: giving files a second name takes a moment.
_PATIENCE_S = 5.0
_LOCK_NAME = ".lock"


class UploadStore:
    """The uploads in a folder; may be used by many threads and processes."""

    def __init__(
        self,
        limits: UploadLimits,
        *,
        keep_for: timedelta,
        register: Callable[[str], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Uploads of a server.

        Args:
            limits: what the server takes.
            keep_for: how long an upload is kept after its last byte.
            register: told of the name of each folder before it is there; what nobody was told of is never tidied away.
            clock: the time, UTC.
        """
        self._register = register
        self._limits = limits
        self._records = UploadRecords(limits.folder)
        self._keep_for = keep_for
        self._clock = clock

    @property
    def limits(self) -> UploadLimits:
        """What the server takes."""
        return self._limits

    def new_folder(self) -> Path:
        """The folder that a slide may be put into, which nobody has yet, and is not there yet.

        Raises:
            JobStoreError: the database does not answer.
        """
        name = str(uuid.uuid4())
        self._register(name)
        return self._records.folder_of(name)

    def create(self, *, name: str, length: int, metadata: str = "", sha256: str | None = None) -> Upload:
        """Take an upload on.

        Raises:
            UploadTooLargeError, UploadQuotaError, OutputNotWritableError: there is no room for it.
            JobStoreError: the database does not answer.
        """
        if length > self._limits.max_upload_bytes:
            raise upload_too_large(self._limits.max_upload_bytes)
        self.remove_expired()
        require_room(self._limits, length, promised=self.promised_bytes())
        expires_at = self._clock() + self._keep_for
        folder = self.new_folder()
        upload = Upload(folder.name, safe_name(name), length, 0, expires_at, metadata, sha256)
        try:
            with writing():
                make_folder(folder)
                (folder / DATA_NAME).touch()
                self._records.save(upload)
        except BaseException:
            self._records.remove(upload.id)
            raise
        return upload

    def promised_bytes(self) -> int:
        """What uploads that are on their way will still bring."""
        return sum(upload.length - upload.offset for upload in self._records.all() if upload.expires_at > self._clock())

    def get(self, upload_id: str) -> Upload:
        """The upload of an id.

        Raises:
            UploadNotFoundError: there is none.
            UploadExpiredError: there was one.
        """
        upload = self._records.read(upload_id)
        if upload is None:
            raise UploadNotFoundError(
                f"There is no upload {upload_id!r}.", cure="Begin a new upload: this one was deleted, or never was."
            )
        if upload.expires_at <= self._clock():
            raise UploadExpiredError(f"The upload {upload_id} has expired.", cure="Begin a new upload.")
        return upload

    def open(self, upload_id: str, offset: int, checksum: Checksum | None = None) -> OpenUpload:
        """Write to an upload, alone, until it is closed.

        Args:
            upload_id: which.
            offset: where the client goes on.
            checksum: of what it sends now.

        Raises:
            UploadLockedError: somebody else does.
            UploadOffsetError: the upload is at another offset.
            UploadNotFoundError, UploadExpiredError: see `get`.
        """
        with ExitStack() as stack:
            stack.enter_context(self._alone(upload_id))
            upload = self.get(upload_id)
            if upload.offset != offset:
                raise UploadOffsetError(
                    f"The upload is at offset {upload.offset}, not {offset}.",
                    cure="Ask for the offset (HEAD) and go on from there.",
                )
            data = self._records.folder_of(upload_id) / DATA_NAME
            file = None if upload.complete else stack.enter_context(data.open("r+b"))
            return OpenUpload(self, upload, file, checksum, stack.pop_all())

    def delete(self, upload_id: str) -> None:
        """Forget an upload; analyses that use it have its files under their own name.

        Raises:
            UploadLockedError: somebody is writing to it, or is being given its files.
            UploadNotFoundError, UploadExpiredError: see `get`.
        """
        with self._alone(upload_id):
            self._records.remove(upload_id)

    def adopt(self, upload_id: str) -> tuple[Path, Path]:
        """Give a slide that has arrived to an analysis: its files get a second name, which costs no space.

        Returns:
            The new folder, and the slide in it.

        Raises:
            UploadIncompleteError: it has not arrived whole.
            OutputNotWritableError: the disk has no room, or cannot be written.
            JobStoreError: the database does not answer.
            UploadNotFoundError, UploadExpiredError, UploadLockedError, ArchiveError, UploadChecksumError: see each.
        """
        _require_complete(self.get(upload_id))
        with writing(), self._alone(upload_id, patience_s=_PATIENCE_S):
            upload = self.get(upload_id)
            if upload.slide is None:
                upload = self.finish(upload)
            assert upload.slide is not None
            folder = self.new_folder()
            copy_files(self._records.folder_of(upload_id) / FILES_NAME, folder)
            return folder, folder / Path(upload.slide).relative_to(FILES_NAME)

    def remove_expired(self) -> list[str]:
        """Remove what was left too long, except while somebody writes to it; the ids."""
        removed = []
        for upload in self._records.all():
            if upload.expires_at <= self._clock():
                with self._lock(upload.id) as held:
                    if held:
                        self._records.remove(upload.id)
                        removed.append(upload.id)
        return removed

    # ---- for the writer ------------------------------------------------------------------------------------------

    def finish(self, upload: Upload) -> Upload:
        """Make the slide of an upload that has arrived whole, by whoever holds its lock; again where a crash came between.

        Raises:
            UploadChecksumError, ArchiveError: it is of no use, and gone.
        """
        folder = self._records.folder_of(upload.id)
        try:
            slide = make_files(folder, upload, self._limits, self.promised_bytes)
        except (ArchiveError, UploadChecksumError):
            self._records.remove(upload.id)
            raise
        upload = replace(upload, slide=slide.relative_to(folder).as_posix())
        # What arrived goes when the slide is on the disk by its name, and the record that says so.
        self._records.save(upload)
        (folder / DATA_NAME).unlink(missing_ok=True)
        return upload

    def record(self, upload: Upload, offset: int) -> Upload:
        """Store that so many bytes are safe; the upload lives longer by that."""
        upload = replace(upload, offset=offset, expires_at=self._clock() + self._keep_for)
        self._records.save(upload)
        return upload

    # ---- inside --------------------------------------------------------------------------------------------------

    @contextmanager
    def _alone(self, upload_id: str, *, patience_s: float = 0.0) -> Iterator[None]:
        self.get(upload_id)
        with self._lock(upload_id, patience_s) as held:
            # Whoever had it may have deleted it.
            self.get(upload_id)
            if not held:
                raise UploadLockedError(
                    "Another request is writing to this upload.", cure="Wait until it has ended, ask for the offset, and go on."
                )
            yield

    @contextmanager
    def _lock(self, upload_id: str, patience_s: float = 0.0) -> Iterator[bool]:
        """Whether this one has the upload to itself; False also where it is gone."""
        until = time.monotonic() + patience_s
        with ExitStack() as stack:
            lock = exclusive_lock(self._records.folder_of(upload_id) / _LOCK_NAME, give_up=lambda: time.monotonic() >= until)
            try:
                held = stack.enter_context(lock)
            except FileNotFoundError:
                held = False
            yield held


class OpenUpload:
    """An upload that somebody writes to."""

    def __init__(
        self, store: UploadStore, upload: Upload, file: BinaryIO | None, checksum: Checksum | None, lock: ExitStack
    ) -> None:
        self._store = store
        self._upload = upload
        self._file = file
        self._checksum = checksum
        self._lock = lock
        self._arrived = self._unsafe_from = upload.offset
        # What it promised itself is what it brings now.
        self._room = RoomWatch(store.limits, lambda: 0)
        if file is not None:
            file.truncate(upload.offset)
            file.seek(upload.offset)

    def require_fit(self, count: int) -> None:
        """Check that so many bytes may still come.

        Raises:
            UploadRequestError: they are more than the client announced at the beginning.
        """
        lacking = self._upload.length - self._arrived
        if count > lacking:
            raise UploadRequestError(
                f"The request has more bytes than the upload lacks ({lacking}).",
                cure="Send what Upload-Length announced, and no more.",
            )

    def write(self, piece: bytes) -> None:
        """Take the next bytes.

        Raises:
            UploadRequestError: there are more than the client announced.
            UploadQuotaError, OutputNotWritableError: there is no room any more.
        """
        self.require_fit(len(piece))
        if self._file is None or not piece:
            return
        with writing():
            self._file.write(piece)
        self._arrived += len(piece)
        self._room.wrote(len(piece))
        if self._checksum is not None:
            self._checksum.update(piece)
        elif self._arrived - self._unsafe_from >= _SAFE_EVERY_BYTES:
            self._make_safe()

    def commit(self) -> Upload:
        """The request has come to its end: what it brought is kept, and an upload that is whole becomes a slide.

        Raises:
            UploadChecksumError: of the request, or of the whole.
            ArchiveError: it is a zip that cannot be used.
            OutputNotWritableError: the disk is full.
        """
        if self._checksum is not None:
            self._checksum.require_match()
            self._checksum = None
        with writing():
            self._make_safe()
            if self._upload.complete and self._upload.slide is None:
                self._upload = self._store.finish(self._upload)
        return self._upload

    def close(self) -> None:
        """Let go of the upload. Of a request that was cut off, what arrived is kept, unless its checksum could not be seen."""
        with self._lock:
            if self._checksum is None and self._arrived > self._unsafe_from:
                # Best effort: the client will ask for the offset before it goes on.
                with suppress(OSError):
                    self._make_safe()

    def _make_safe(self) -> None:
        if self._file is not None and self._arrived > self._unsafe_from:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._upload = self._store.record(self._upload, self._arrived)
            self._unsafe_from = self._arrived


def _require_complete(upload: Upload) -> None:
    if not upload.complete:
        raise UploadIncompleteError(
            f"The upload has {upload.offset} of {upload.length} bytes.", cure="Send the rest, then ask for the analysis."
        )
