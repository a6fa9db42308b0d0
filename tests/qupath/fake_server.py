"""A hepamap server of a few lines that speaks its REST contract, and misbehaves where a test asks for it."""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NOTICE = "For Research Use Only. Not for use in diagnostic procedures."
ANALYSIS_ID = "0a6d3b52-5d0e-4f5e-8f3e-2f0d3f0a9c11"

MODEL = {
    "id": "hcc-10x",
    "version": "1.0.0",
    "name": "hcc-10x@1.0.0",
    "default": True,
    "manifest": {"strides": [16, 32, 64, 96, 128], "default_stride": 32},
}

STEADY: dict[tuple[str, str], Any] = {
    ("GET", "/version"): {"name": "hepamap", "version": "0.1.0", "api": "v1"},
    ("GET", "/api/v1/models"): {"items": [MODEL]},
    ("GET", "/api/v1/models/hcc-5x"): MODEL,
    ("GET", "/health/ready"): {"status": "ready", "checks": {"models": {"ok": True, "detail": "hcc-10x@1.0.0"}}},
    ("POST", "/api/v1/slides/resolve"): {"visible": True, "same_slide": True, "reason": None, "slide": {"path": "/data/a.svs"}},
}

Body = Mapping[str, Any] | str | bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back; `delay_s` before it, `cut` instead of it."""

    status: int
    body: Body = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


Reply = Callable[[Asked], Answer]


def feature(polygon: Sequence[Sequence[Sequence[float]]], *, model: str = "hcc-10x@1.0.0", **others: Any) -> dict[str, Any]:
    """A contour as the server makes it."""
    properties = {
        "objectType": "annotation",
        "name": "Tumor (AI)",
        "classification": {"name": "Tumor (AI)", "color": [200, 0, 0]},
        "isLocked": True,
        "measurements": {"Area mm^2": 1.5},
        "metadata": {"hepamap.model": model, "hepamap.notice": NOTICE},
    }
    return {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": polygon}, **others}


def collection(*features: Mapping[str, Any], model: str = "hcc-10x", tissue_mm2: float = 10.0) -> dict[str, Any]:
    """Contours as the server sends them."""
    properties = {
        "tissue_area_mm2": tissue_mm2,
        "tumour_area_mm2": 1.5 * len(features),
        "provenance": {"model": {"id": model, "version": "1.0.0"}},
    }
    return {"type": "FeatureCollection", "features": list(features), "properties": properties}


def problem(status: int, code: str, detail: str, cure: str) -> Answer:
    """A problem document."""
    body = {"type": f"urn:hepamap:problem:{code}", "title": "-", "status": status, "detail": detail, "code": code, "cure": cure}
    return Answer(status, body, {"Content-Type": "application/problem+json"})


def analysis(state: str = "succeeded", **others: Any) -> dict[str, Any]:
    """An analysis as the server describes it."""
    done = {"queued": 0, "running": 25}.get(state, 100)
    progress = {"done": done, "total": 100, "stage": "classifying", "fraction": done / 100, "eta_s": 125.0}
    return {
        "id": ANALYSIS_ID,
        "state": state,
        "outcome": "ok" if state == "succeeded" else None,
        "progress": progress,
        "warnings": [],
        "error": None,
        "notice": NOTICE,
        **others,
    }


class FakeHepamap:
    """The server; `contours` may depend on the request that was posted."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self.states: list[dict[str, Any]] = []
        self.contours: Callable[[Any], Mapping[str, Any]] = lambda _: collection()
        self._special: dict[tuple[str, str], list[Answer | Reply]] = {}
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._http.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that refuses the certificate
        self._scheme = "http" if context is None else "https"
        if context is not None:
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def reset(self) -> None:
        self.asked.clear()
        self.states = []
        self.contours = lambda _: collection()
        self._special.clear()

    def answer(self, method: str, path: str, *answers: Answer | Reply) -> None:
        """Answer what fits `path` (a regular expression) in this way, the last one again and again."""
        self._special[method, path] = list(answers)

    def calls(self, method: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.method == method]

    def questions(self) -> list[Any]:
        """Bodies of the requests for analyses."""
        return [asked.body for asked in self.calls("POST") if asked.path == "/api/v1/analyses"]

    @property
    def posted(self) -> Any:
        """Body of the one request for an analysis."""
        (body,) = self.questions()
        return body

    def reply(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        path = asked.path.partition("?")[0]
        for (method, pattern), answers in self._special.items():
            if method == asked.method and re.fullmatch(pattern, path):
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                return answer if isinstance(answer, Answer) else answer(asked)
        return self._usual(asked.method, path)

    def _usual(self, method: str, path: str) -> Answer:
        own = f"/api/v1/analyses/{ANALYSIS_ID}"
        if (method, path) in STEADY:
            return Answer(200, STEADY[method, path])
        match method, path:
            case "POST", "/api/v1/analyses":
                return Answer(202, analysis("queued"), {"Location": own})
            case "GET", _ if path == own:
                return Answer(200, self.states.pop(0) if len(self.states) > 1 else (self.states or [analysis()])[0])
            case "GET", _ if path == f"{own}/contours":
                return Answer(200, self.contours((self.questions() or [None])[-1]))
            case "DELETE", _ if path == own:
                return Answer(202, analysis("running"))
        return problem(404, "not_found", "There is nothing at this address.", "See /openapi.json for what there is.")


def _handler(server: FakeHepamap) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            is_json = self.headers.get("Content-Type", "").startswith("application/json")
            body = json.loads(sent) if sent and is_json else sent or None
            answer = server.reply(Asked(self.command, self.path, dict(self.headers), body))
            time.sleep(answer.delay_s)
            if answer.cut:
                self.close_connection = True
                return
            self._send(answer)

        def _send(self, answer: Answer) -> None:
            body = answer.body
            raw = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
            try:
                self.send_response(answer.status)
                for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)
            except OSError:
                self.close_connection = True  # the client did not wait

        do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = do_HEAD = _serve

        def log_message(self, format: str, *args: Any) -> None: ...

    return Handler
