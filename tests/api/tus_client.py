"""What a tus client does, as plain requests."""

from __future__ import annotations

import base64
from typing import Any

from fastapi.testclient import TestClient

TUS = {"Tus-Resumable": "1.0.0"}
UPLOADS = "/api/v1/uploads"


def metadata(**values: str) -> str:
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())


def begin(client: TestClient, length: int, name: str = "slide.tif", **more: str) -> str:
    """Begin an upload; its address."""
    headers = {**TUS, "Upload-Length": str(length), "Upload-Metadata": metadata(filename=name, **more)}
    response = client.post(UPLOADS, headers=headers)
    assert response.status_code == 201, response.text
    return str(response.headers["location"])


def append(client: TestClient, url: str, offset: int | str, data: Any, **headers: str) -> Any:
    kind = {"Content-Type": "application/offset+octet-stream"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.patch(url, content=data, headers={**TUS, **kind, "Upload-Offset": str(offset), **named})


def offset_of(client: TestClient, url: str) -> int:
    response = client.head(url, headers=TUS)
    assert response.status_code == 200
    return int(response.headers["upload-offset"])


def send_whole(client: TestClient, data: bytes, name: str = "slide.tif", **more: str) -> str:
    """Upload in one request; the upload's id."""
    url = begin(client, len(data), name, **more)
    response = append(client, url, 0, data)
    assert response.status_code == 204, response.text
    return url.rpartition("/")[2]
