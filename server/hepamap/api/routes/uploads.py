"""Uploads that can be cut off and go on, by tus 1.0."""

from __future__ import annotations

from typing import Annotated

from anyio import CancelScope, move_on_after, to_thread
from fastapi import APIRouter, Path, Request, Response
from pydantic import Field

from hepamap.api.checksums import Checksum
from hepamap.api.routes.problems import problems
from hepamap.api.schemas import Answer
from hepamap.api.services import ServicesOf
from hepamap.api.tus import (
    BODY_TYPE,
    TusRoute,
    number_in,
    parse_metadata,
    require_body_type,
    server_headers,
    upload_headers,
)
from hepamap.api.upload_errors import UploadRequestError, UploadStalledError
from hepamap.api.upload_records import Upload
from hepamap.api.upload_store import OpenUpload
from hepamap.api.uploads import PIECE_BYTES
from hepamap.api.views import API_PREFIX

router = APIRouter(prefix="/uploads", tags=["uploads"], route_class=TusRoute)

UploadId = Annotated[str, Path(description="Id of the upload.", examples=["0c7a4f6e-3f39-4c88-a9a1-7b8c5b0f4f10"])]
_BODY = {"requestBody": {"required": True, "content": {BODY_TYPE: {"schema": {"type": "string", "format": "binary"}}}}}


class UploadAnswer(Answer):
    """An upload as it stands."""

    id: str = Field(
        description="Its id; an analysis names it as `slide.upload`.", examples=["0c7a4f6e-3f39-4c88-a9a1-7b8c5b0f4f10"]
    )
    name: str = Field(description="File name, as the server keeps it.", examples=["case-17.mrxs.zip"])
    length: int = Field(description="Bytes that it will have.", examples=[3221225472])
    offset: int = Field(description="Bytes that have safely arrived.", examples=[1073741824])
    complete: bool = Field(description="Whether all of it has arrived.", examples=[False])
    expires_at: str = Field(description="When it is removed unless it is used (UTC).", examples=["2026-05-01T12:00:00+00:00"])


@router.options("", status_code=204, include_in_schema=False)
def describe_uploads(services: ServicesOf) -> Response:
    """What the server can do."""
    return Response(status_code=204, headers=server_headers(services.settings.max_upload_bytes))


@router.post(
    "",
    status_code=201,
    responses=problems(
        s400="A header is missing or says nothing that can be used.",
        s412="It is not tus 1.0.0.",
        s413="The slide is larger than the server takes.",
        s507="There is no room for the slide.",
    ),
)
def create_upload(request: Request, response: Response, services: ServicesOf) -> UploadAnswer:
    """Begin an upload of `Upload-Length` bytes; `Upload-Metadata` may have `filename`, and `sha256` of the whole in hex.

    A slide that has many files (MRXS, DICOM, VMS) is sent as one zip.
    """
    if "upload-defer-length" in request.headers:
        raise UploadRequestError("The length of the upload is not said.", cure="Send Upload-Length: slides have a known length.")
    length = number_in(request.headers, "upload-length")
    if length == 0:
        raise UploadRequestError("An upload of no bytes is no slide.", cure="Send the length of the slide as Upload-Length.")
    metadata = parse_metadata(request.headers.get("upload-metadata", ""))
    upload = services.uploads.create(name=metadata.name, length=length, metadata=metadata.text, sha256=metadata.sha256)
    response.headers.update({"Location": f"{API_PREFIX}/uploads/{upload.id}", **upload_headers(upload)})
    return _answer(upload)


@router.head("/{upload_id}", include_in_schema=False)
def find_upload(upload_id: UploadId, services: ServicesOf) -> Response:
    """How far an upload is."""
    upload = services.uploads.get(upload_id)
    headers = {**upload_headers(upload), "Upload-Length": str(upload.length), "Cache-Control": "no-store"}
    if upload.metadata:
        headers["Upload-Metadata"] = upload.metadata
    return Response(headers=headers)


@router.get("/{upload_id}", responses=problems(s404="There is no upload of that id.", s410="It has expired."))
def get_upload(upload_id: UploadId, response: Response, services: ServicesOf) -> UploadAnswer:
    """How far an upload is, for people."""
    upload = services.uploads.get(upload_id)
    response.headers.update({**upload_headers(upload), "Cache-Control": "no-store"})
    return _answer(upload)


@router.patch(
    "/{upload_id}",
    status_code=204,
    openapi_extra=_BODY,
    responses=problems(
        s400="A header says nothing that can be used.",
        s404="There is no upload of that id.",
        s408="The client went silent.",
        s409="The upload is at another offset.",
        s410="It has expired.",
        s412="It is not tus 1.0.0.",
        s413="The zip holds more than the server takes.",
        s415="The body is not a piece of an upload.",
        s422="It is a zip that cannot be used.",
        s423="Another request is writing to it.",
        s460="What arrived is not what was sent.",
        s507="There is no room.",
    ),
)
async def append_to_upload(request: Request, upload_id: UploadId, services: ServicesOf) -> Response:
    """Send the next bytes, from `Upload-Offset` on. What arrived before a cut is kept: ask for the offset (HEAD) and go on."""
    require_body_type(request.headers)
    offset = number_in(request.headers, "upload-offset")
    checksum = request.headers.get("upload-checksum")
    opened = await to_thread.run_sync(
        services.uploads.open, upload_id, offset, None if checksum is None else Checksum.parse(checksum)
    )
    try:
        announced = request.headers.get("content-length")
        if announced is not None:
            opened.require_fit(number_in(request.headers, "content-length"))
        await _receive(request, opened, services.settings.upload_silence_s)
        upload = await to_thread.run_sync(opened.commit)
    finally:
        # Also where the client has gone: what it sent is to be kept, and the upload let go.
        with CancelScope(shield=True):
            await to_thread.run_sync(opened.close)
    return Response(status_code=204, headers=upload_headers(upload))


@router.delete(
    "/{upload_id}",
    status_code=204,
    responses=problems(
        s404="There is no upload of that id.", s410="It has expired.", s412="No tus 1.0.0.", s423="A request is writing to it."
    ),
)
def delete_upload(upload_id: UploadId, services: ServicesOf) -> Response:
    """Forget an upload. Analyses that were asked for with it keep their slide."""
    services.uploads.delete(upload_id)
    return Response(status_code=204)


async def _receive(request: Request, opened: OpenUpload, silence_s: float) -> None:
    """Write what comes in, piece by piece; the memory that it takes does not grow with the slide."""
    stream, piece = request.stream(), bytearray()

    async def write() -> None:
        data = bytes(piece)
        piece.clear()
        await to_thread.run_sync(opened.write, data)

    try:
        while True:
            with move_on_after(silence_s) as waiting:
                chunk = await anext(stream, None)
            if waiting.cancelled_caught:
                raise UploadStalledError(
                    f"Nothing came for {silence_s:g} s.", cure="Ask for the offset (HEAD) and go on from there."
                )
            if chunk is None:
                break
            piece += chunk
            if len(piece) >= PIECE_BYTES:
                await write()
    finally:
        # However little came before the line was cut: over a bad one, the slide arrives by such pieces alone.
        with CancelScope(shield=True):
            await write()


def _answer(upload: Upload) -> UploadAnswer:
    return UploadAnswer(
        id=upload.id,
        name=upload.name,
        length=upload.length,
        offset=upload.offset,
        complete=upload.complete,
        expires_at=upload.expires_at.isoformat(),
    )
