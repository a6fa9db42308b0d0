"""Uploads that come in several requests: one folder each, with what has arrived and a file that says how much of it is safe.

The folder of an upload holds `.upload.json` (what it is, and the offset), `.data` (what has arrived) and, once it is whole,
`files` with the slide. The offset is written after the data has reached the disk, so it is true after any crash; bytes beyond
it are cut off when the client goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from hepamap.api.archives import is_archive, slide_in, unpack
from hepamap.api.checksums import Checksum
from hepamap.api.disk import disk_failure
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
from hepamap.api.upload_room import RoomWatch, UploadLimits, require_room, upload_too_large
from hepamap.jobs.processes import exclusive_lock

# How much a crash of the machine may cost, bytes; each time the disk is waited for.
_SAFE_EVERY_BYTES = 64 * 1024**2
_INFO_NAME, _DATA_NAME, _LOCK_NAME, _FILES_NAME, _UNPACKING_NAME = ".upload.json", ".data", ".lock", "files", ".unpacking"


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
        """The opposite of `to_json`."""
        return cls(**{**data, "expires_at": datetime.fromisoformat(data["expires_at"])})


class UploadStore:
    """The uploads in a folder; may be used by many threads and processes."""

    def __init__(
        self, limits: UploadLimits, *, keep_for: timedelta, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._limits = limits
        self._keep_for = keep_for
        self._clock = clock

    @property
    def limits(self) -> UploadLimits:
        """What the server takes."""
        return self._limits

    def create(self, *, name: str, length: int, metadata: str = "", sha256: str | None = None) -> Upload:
        """Take an upload on.

        Raises:
            UploadTooLargeError, UploadQuotaError, OutputNotWritableError: there is no room for it.
        """
        if length > self._limits.max_upload_bytes:
            raise upload_too_large(self._limits.max_upload_bytes)
        self.remove_expired()
        require_room(self._limits, length, promised=self.promised_bytes())
        expires_at = self._clock() + self._keep_for
        upload = Upload(str(uuid.uuid4()), safe_name(name), length, 0, expires_at, metadata, sha256)
        self._folder(upload.id).mkdir(parents=True)
        (self._folder(upload.id) / _DATA_NAME).touch()
        self._save(upload)
        return upload

    def promised_bytes(self) -> int:
        """What uploads that are on their way will still bring."""
        return sum(upload.length - upload.offset for upload in self._all() if upload.expires_at > self._clock())

    def get(self, upload_id: str) -> Upload:
        """The upload of an id.

        Raises:
            UploadNotFoundError: there is none.
            UploadExpiredError: there was one.
        """
        upload = self._read(upload_id)
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
            file = stack.enter_context((self._folder(upload_id) / _DATA_NAME).open("r+b")) if not upload.complete else None
            return OpenUpload(self, upload, file, checksum, stack.pop_all())

    def delete(self, upload_id: str) -> None:
        """Forget an upload; analyses that use it have its files under their own name.

        Raises:
            UploadLockedError: somebody is writing to it.
            UploadNotFoundError, UploadExpiredError: see `get`.
        """
        self.get(upload_id)
        with self._alone(upload_id):
            shutil.rmtree(self._folder(upload_id), ignore_errors=True)

    def adopt(self, upload_id: str) -> tuple[Path, Path]:
        """Give a slide that has arrived to an analysis: its files get a second name, which costs no space.

        Returns:
            The new folder, and the slide in it.

        Raises:
            UploadIncompleteError: it has not arrived whole.
            UploadNotFoundError, UploadExpiredError, UploadLockedError, ArchiveError, UploadChecksumError: see each.
        """
        upload = self.get(upload_id)
        if not upload.complete:
            raise UploadIncompleteError(
                f"The upload has {upload.offset} of {upload.length} bytes.", cure="Send the rest, then ask for the analysis."
            )
        if upload.slide is None:
            with self._alone(upload_id):
                upload = self.finish(self.get(upload_id))
        assert upload.slide is not None
        folder = self._limits.folder / str(uuid.uuid4())
        files = self._folder(upload_id) / _FILES_NAME
        shutil.copytree(files, folder, copy_function=link)
        return folder, folder / Path(upload.slide).relative_to(_FILES_NAME)

    def remove_expired(self) -> list[str]:
        """Remove what was left too long, except while somebody writes to it; the ids."""
        removed = []
        for upload in self._all():
            if upload.expires_at <= self._clock():
                with self._lock(upload.id) as held:
                    if held:
                        shutil.rmtree(self._folder(upload.id), ignore_errors=True)
                        removed.append(upload.id)
        return removed

    # ---- for the writer ------------------------------------------------------------------------------------------

    def finish(self, upload: Upload) -> Upload:
        """Make the slide of an upload that has arrived whole, by whoever holds its lock; again where a crash came between.

        Raises:
            UploadChecksumError, ArchiveError: it is of no use, and gone.
        """
        folder = self._folder(upload.id)
        try:
            if not (folder / _FILES_NAME).is_dir():
                self._make_files(folder, upload)
            files = folder / _FILES_NAME
            slide = slide_in(files) if is_archive(folder / _DATA_NAME) else files / upload.name
        except (ArchiveError, UploadChecksumError):
            shutil.rmtree(folder, ignore_errors=True)
            raise
        upload = replace(upload, slide=slide.relative_to(folder).as_posix())
        self._save(upload)
        (folder / _DATA_NAME).unlink(missing_ok=True)
        return upload

    def _make_files(self, folder: Path, upload: Upload) -> None:
        data, unpacking = folder / _DATA_NAME, folder / _UNPACKING_NAME
        if upload.sha256 is not None:
            _require_sha256(data, upload.sha256)
        shutil.rmtree(unpacking, ignore_errors=True)
        if is_archive(data):
            unpack(
                data,
                unpacking,
                max_bytes=self._limits.max_upload_bytes,
                require_room=lambda count: require_room(self._limits, count, promised=self.promised_bytes()),
            )
        else:
            unpacking.mkdir()
            link(str(data), str(unpacking / upload.name))
        unpacking.rename(folder / _FILES_NAME)

    def record(self, upload: Upload, offset: int) -> Upload:
        """Store that so many bytes are safe; the upload lives longer by that."""
        upload = replace(upload, offset=offset, expires_at=self._clock() + self._keep_for)
        self._save(upload)
        return upload

    # ---- inside --------------------------------------------------------------------------------------------------

    def _folder(self, upload_id: str) -> Path:
        return self._limits.folder / upload_id

    def _all(self) -> Iterator[Upload]:
        for path in self._limits.folder.glob(f"*/{_INFO_NAME}"):
            upload = self._read(path.parent.name)
            if upload is not None:
                yield upload

    def _read(self, upload_id: str) -> Upload | None:
        try:
            # Whoever writes another spelling of an id, or a path, gets nothing.
            if str(uuid.UUID(upload_id)) != upload_id:
                return None
            return Upload.from_json(json.loads((self._folder(upload_id) / _INFO_NAME).read_text("utf-8")))
        except (ValueError, FileNotFoundError):
            return None

    def _save(self, upload: Upload) -> None:
        path = self._folder(upload.id) / _INFO_NAME
        new = path.with_suffix(".new")
        with new.open("w", encoding="utf-8") as file:
            json.dump(upload.to_json(), file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)

    @contextmanager
    def _alone(self, upload_id: str) -> Iterator[None]:
        self.get(upload_id)
        with self._lock(upload_id) as held:
            if not held:
                raise UploadLockedError(
                    "Another request is writing to this upload.", cure="Wait until it has ended, ask for the offset, and go on."
                )
            yield

    @contextmanager
    def _lock(self, upload_id: str) -> Iterator[bool]:
        """Whether this one has the upload to itself; False also where it is gone."""
        with ExitStack() as stack:
            lock = exclusive_lock(self._folder(upload_id) / _LOCK_NAME, give_up=lambda: True)
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
        with _writing():
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
        with _writing():
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


def link(source: str, target: str) -> str:
    """Give a file a second name; a copy where the file system knows no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_failure(error) from error


def _require_sha256(path: Path, wanted: str) -> None:
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != wanted:
            raise UploadChecksumError(
                "The slide that arrived is not the one that was sent (sha256 differs).", cure="Upload it again."
            )
