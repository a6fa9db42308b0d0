"""Receiving a request: JSON alone, or multipart with a slide that goes straight to its place on the disk.

FastAPI's own form parsing would first spool the whole slide into the system's temporary folder and know its size only
at the end, so the body is parsed here as it comes in.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from anyio import to_thread
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from hepamap.api.archives import is_archive, slide_in, unpack
from hepamap.api.disk import writing
from hepamap.api.errors import (
    RequestInvalidError,
    RequestTooLargeError,
    UnsupportedMediaTypeError,
)
from hepamap.api.file_names import safe_name
from hepamap.api.upload_room import RoomWatch, require_room, upload_too_large
from hepamap.api.upload_slides import FILES_NAME, UNPACKING_NAME
from hepamap.api.upload_store import UploadStore
from hepamap.folders import make_folder, sync_tree

# Written in pieces of this size, each by a thread, so that a slow disk never holds up other requests.
PIECE_BYTES = 1024**2
"""What is worth a thread."""
# What a multipart body has besides its two parts: boundaries and headers.
_MULTIPART_EXTRA_BYTES = 64 * 1024


@dataclass(slots=True)
class Received:
    """A request's JSON, and the slide that came with it or was taken from an upload."""

    json: bytes
    slide: Path | None
    folder: Path | None = None
    """What was made for the slide: removed where the request is refused."""

    def digest(self) -> bytes:
        """What tells this slide, with all its files, from any other that could come with the same JSON."""
        total = hashlib.sha256()
        if self.folder is None:
            return total.digest()
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            total.update(os.fsencode(path.relative_to(self.folder)) + b"\0")
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        return total.digest()

    def discard(self) -> None:
        """Remove the slide; the request was refused."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


async def receive(request: Request, uploads: UploadStore) -> Received:
    """Read the body of a request.

    Raises:
        RequestInvalidError: the multipart body is broken, or has other parts than `request` and `file`.
        RequestTooLargeError: the JSON is too large.
        UploadTooLargeError: the slide is too large.
        UnsupportedMediaTypeError: it is neither JSON nor multipart.
        UploadQuotaError, OutputNotWritableError: there is no room for the slide.
        JobStoreError: the database does not answer, and a slide came.
    """
    limits = uploads.limits
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind == b"application/json":
        return Received(await _read_json(request, limits.max_request_bytes), None)
    if kind == b"multipart/form-data" and options.get(b"boundary"):
        await to_thread.run_sync(_require_acceptable, request, uploads)
        return await _read_multipart(request, _Parts(options[b"boundary"], uploads))
    raise UnsupportedMediaTypeError(
        "The body is neither JSON nor multipart/form-data.",
        cure="Send Content-Type: application/json, or multipart/form-data with the parts `request` and `file`.",
    )


async def receive_json(request: Request, max_bytes: int) -> bytes:
    """Read the body of a request that is JSON.

    Raises:
        RequestTooLargeError: it is too large.
        UnsupportedMediaTypeError: it is something else.
    """
    kind, _ = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"application/json":
        raise UnsupportedMediaTypeError("The body is not JSON.", cure="Send Content-Type: application/json.")
    return await _read_json(request, max_bytes)


async def _read_json(request: Request, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise _json_too_large(max_bytes)
    return bytes(body)


async def _read_multipart(request: Request, parts: _Parts) -> Received:
    try:
        async for piece in _pieces(request.stream()):
            await to_thread.run_sync(parts.feed, piece)
        return await to_thread.run_sync(parts.finish)
    except BaseException:
        # Also where the client has gone away: nobody will ever ask for this file.
        parts.discard()
        raise


async def _pieces(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    piece = bytearray()
    async for chunk in stream:
        piece += chunk
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def _require_acceptable(request: Request, uploads: UploadStore) -> None:
    """Refuse before anything is sent, where the header already says enough."""
    limits = uploads.limits
    text = request.headers.get("content-length", "")
    announced = int(text) if text.isascii() and text.isdigit() else 0
    if announced > limits.max_upload_bytes + limits.max_request_bytes + _MULTIPART_EXTRA_BYTES:
        raise upload_too_large(limits.max_upload_bytes)
    require_room(limits, announced, promised=uploads.promised_bytes())


class _Parts:
    """Takes a multipart body piece by piece: `request` into memory, `file` onto the disk."""

    def __init__(self, boundary: bytes, uploads: UploadStore) -> None:
        self._uploads = uploads
        self._limits = uploads.limits
        self._promised = uploads.promised_bytes
        self._room = RoomWatch(uploads.limits, uploads.promised_bytes)
        self._json = bytearray()
        self._slide: Path | None = None
        self._slide_bytes = 0
        self._file: IO[bytes] | None = None
        self._seen: set[str] = set()
        self._part = ""
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._take_header_name,
                "on_header_value": self._take_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._take_data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the body."""
        try:
            with writing():
                self._parser.write(piece)
                if self._slide is not None:
                    # However slowly it comes, it is no stray: those are a day old.
                    os.utime(self._slide.parent)
        except MultipartParseError as error:
            raise _broken() from error

    def finish(self) -> Received:
        """What the whole body said."""
        if not self._complete:
            raise _broken()
        if self._slide is None or self._slide_bytes == 0:
            raise RequestInvalidError(
                "The multipart body has no slide in it.",
                cure="Add the slide as the part `file`, with a file name; or send JSON with the path of a slide.",
            )
        self._room.look()
        folder = self._slide.parent
        with writing():
            slide = self._unpacked(self._slide)
            # The client is told that its slide is here, and may throw away its own.
            sync_tree(folder)
        return Received(bytes(self._json) or b"{}", slide, folder)

    def _unpacked(self, slide: Path) -> Path:
        if not is_archive(slide):
            return slide
        # The zip may have been sent by the name that its files are to have.
        unpacking = slide.parent / UNPACKING_NAME
        unpack(
            slide,
            unpacking,
            max_bytes=self._limits.max_upload_bytes,
            require_room=lambda count: require_room(self._limits, count, promised=self._promised()),
        )
        slide.unlink()
        return slide_in(unpacking.rename(slide.parent / FILES_NAME))

    def discard(self) -> None:
        """Remove what was written."""
        with suppress(OSError):  # closing writes what is left, and the disk may be what this is about
            self._end_part()
        if self._slide is not None:
            shutil.rmtree(self._slide.parent, ignore_errors=True)

    def _begin_part(self) -> None:
        self._part, self._disposition = "", b""

    def _take_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _take_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._part = options.get(b"name", b"").decode("utf-8", "replace")
        if self._part not in ("request", "file") or self._part in self._seen:
            raise RequestInvalidError(
                f"The multipart body has a part {self._part!r} that is not expected here.",
                cure="Send one part `request` with the JSON and one part `file` with the slide.",
            )
        self._seen.add(self._part)
        if self._part == "file":
            self._open_slide(options.get(b"filename", b"").decode("utf-8", "replace"))

    def _open_slide(self, name: str) -> None:
        folder = self._uploads.new_folder()
        self._slide = folder / safe_name(name)
        make_folder(folder)
        self._file = self._slide.open("xb")

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._slide_bytes += end - start
            if self._slide_bytes > self._limits.max_upload_bytes:
                raise upload_too_large(self._limits.max_upload_bytes)
            self._file.write(data[start:end])
            self._room.wrote(end - start)
        else:
            self._json += data[start:end]
            if len(self._json) > self._limits.max_request_bytes:
                raise _json_too_large(self._limits.max_request_bytes)

    def _end_part(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _end(self) -> None:
        self._complete = True


def _broken() -> RequestInvalidError:
    return RequestInvalidError("The multipart body is broken or cut off.", cure="Send it again, whole.")


def _json_too_large(max_bytes: int) -> RequestTooLargeError:
    return RequestTooLargeError(
        f"The JSON is larger than this server takes ({max_bytes} bytes).", cure="Simplify the outline of the region."
    )
