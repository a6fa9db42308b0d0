"""The client for QuPath, from the very server that it is to use; for everybody, since it is got before anyone has a key."""

from __future__ import annotations

import re

from fastapi import APIRouter, Request, Response
from pydantic import Field

from hepamap import __version__
from hepamap.api.errors import RequestInvalidError
from hepamap.api.routes.problems import problems
from hepamap.api.schemas import Answer
from hepamap.qupath_client.assembly import assemble
from hepamap.qupath_client.sources import read_sources, sources_folder

router = APIRouter(prefix="/qupath", tags=["qupath"])

SCRIPT_NAME = "hepamap.groovy"
_SCRIPT_TYPE = "text/x-groovy"
# A host as browsers and proxies send it: a name or an address, perhaps a port.
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")


class DownloadAnswer(Answer):
    """Something that can be downloaded."""

    name: str = Field(description="Name of the file.", examples=[SCRIPT_NAME])
    path: str = Field(description="Where it is on this server.", examples=[f"/qupath/{SCRIPT_NAME}"])
    media_type: str = Field(description="What kind of file it is.", examples=[_SCRIPT_TYPE])
    version: str = Field(description="Version of hepamap that it belongs to.", examples=["0.1.0"])
    description: str = Field(description="What it is for.")


class DownloadList(Answer):
    """What can be downloaded for QuPath."""

    items: list[DownloadAnswer] = Field(description="The files.")


@router.get("/")
def list_downloads() -> DownloadList:
    """What there is for QuPath; needs no key."""
    script = DownloadAnswer(
        name=SCRIPT_NAME,
        path=f"/qupath/{SCRIPT_NAME}",
        media_type=_SCRIPT_TYPE,
        version=__version__,
        description="The client for QuPath 0.5 to 0.7 as one script: drag it onto QuPath's window, then run it.",
    )
    return DownloadList(items=[script])


@router.get(
    f"/{SCRIPT_NAME}",
    response_class=Response,
    responses={
        200: {
            "description": "A Groovy script that knows the address under which it was fetched.",
            "content": {_SCRIPT_TYPE: {"schema": {"type": "string"}}},
        },
        **problems(
            s404="This installation has no sources of the client.", s422="The header Host is no host name with a port or without."
        ),
    },
)
def get_script(request: Request) -> Response:
    """The client for QuPath as one script, with this server's address filled in; needs no key."""
    address = _address_of(request)
    text = assemble(read_sources(sources_folder()), address)
    headers = {
        "Content-Disposition": f'attachment; filename="{SCRIPT_NAME}"',
        # Another caller may reach the server under another name, and a newer server has a newer script.
        "Cache-Control": "no-store",
    }
    return Response(text, media_type=f"{_SCRIPT_TYPE}; charset=utf-8", headers=headers)


def _address_of(request: Request) -> str:
    """As the caller reached the server; behind a proxy as far as uvicorn believes what that says (FORWARDED_ALLOW_IPS)."""
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        raise RequestInvalidError(
            "The header Host is no address that a script could be given.", cure="Call the server by its name or IP address."
        )
    return f"{request.url.scheme}://{host}"
