"""The requests behind the rows of docs/rest-bad-input.md, by the name of the row."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient

from tests.api import test_archives as zips
from tests.api import test_bad_input as slides
from tests.api.conftest import post, services_of
from tests.api.test_bad_input import BOW_TIE, SQUARE
from tests.api.tus_client import TUS, UPLOADS, append, begin, metadata, send_whole
from tests.conftest import write_tiff_slide
from tests.shapes import tangled

ANALYSES = "/api/v1/analyses"
MB = 1024**2


@dataclass(frozen=True, slots=True)
class Place:
    """What a request may use."""

    client: TestClient
    root: Path
    slide: Path


Case = Callable[[Place], Any]


def by_path(make: Callable[[Path, Path], Path | str]) -> Case:
    return lambda at: at.client.post(ANALYSES, json={"slide": {"path": str(make(at.root, at.slide))}})


def of_path(path: str) -> Case:
    return by_path(lambda root, slide: path)


def with_(**values: Any) -> Case:
    """A good request with something bad in it."""
    return lambda at: at.client.post(ANALYSES, json={"slide": {"path": str(at.slide)}, **values})


def region(*ring: Any, kind: str = "Polygon") -> Case:
    return with_(region={"type": kind, "coordinates": list(ring)})


def body(content: bytes, kind: str = "application/json") -> Case:
    return lambda at: at.client.post(ANALYSES, content=content, headers={"Content-Type": kind})


def parts(*files: tuple[str, bytes], request: Any = None) -> Case:
    form = [(name, (f"{name}.svs", data, "application/octet-stream")) for name, data in files]
    data = {} if request is None else {"request": json.dumps(request)}
    return lambda at: at.client.post(ANALYSES, files=form, data=data)


def call(method: str, path: str) -> Case:
    return lambda at: at.client.request(method, path)


def of_finished(question: str) -> Case:
    def ask(at: Place) -> Any:
        from tests.api.conftest import work

        links = post(at.client, at.slide)["links"]
        work(at.client)
        return at.client.get(f"{links['self']}/{question}")

    return ask


def of_queued(question: str) -> Case:
    return lambda at: at.client.get(f"{post(at.client, at.slide)['links']['self']}/{question}")


def said(body: Any = None, *, early: bool = False, **headers: str) -> Case:
    """A verdict on an analysis; bytes are sent as they are."""

    def ask(at: Place) -> Any:
        from tests.api.conftest import work

        links = post(at.client, at.slide)["links"]
        if not early:
            work(at.client)
        content = body if isinstance(body, bytes) else json.dumps({"user": "x", **(body or {})}).encode()
        named = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
        return at.client.post(f"{links['self']}/verdicts", content=content, headers=named)

    return ask


def accepted_nothing(at: Place) -> Any:
    """A verdict on a slide of glass."""
    from tests.api.conftest import work

    white = write_tiff_slide(at.slide.with_name("white.tif"), np.full((300, 400, 3), 255, np.uint8), 0.46)
    links = post(at.client, white)["links"]
    work(at.client)
    return at.client.post(f"{links['self']}/verdicts", json={"decision": "accepted", "user": "x"})


def edited(geometry: Any) -> Case:
    return said({"decision": "edited", "geometry": geometry})


def chosen(early: bool = False, **body: Any) -> Case:
    def ask(at: Place) -> Any:
        from tests.api.conftest import work

        links = post(at.client, at.slide)["links"]
        if not early:
            work(at.client)
        return at.client.put(f"{links['self']}/threshold", json=body)

    return ask


def two_verdicts_with_one_mark(at: Place) -> Any:
    from tests.api.conftest import work

    links = post(at.client, at.slide)["links"]
    work(at.client)
    bodies = [{"user": name, "decision": "accepted"} for name in "ab"]
    return [at.client.post(f"{links['self']}/verdicts", json=body, headers={"Idempotency-Key": "v"}) for body in bodies][-1]


def marked(key: str, *thresholds: float) -> Case:
    """Requests with one Idempotency-Key; the answer to the last."""

    def ask(at: Place) -> Any:
        bodies = [{"slide": {"path": str(at.slide)}, "threshold": threshold} for threshold in thresholds]
        return [at.client.post(ANALYSES, json=body, headers={"Idempotency-Key": key}) for body in bodies][-1]

    return ask


def resolve(**values: Any) -> Case:
    return lambda at: at.client.post("/api/v1/slides/resolve", json=values)


def new_upload(**headers: str) -> Case:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda at: at.client.post(UPLOADS, headers={**TUS, **named})


def piece(data: bytes = b"abc", offset: int | str = 0, length: int = 10, **headers: str) -> Case:
    def send(at: Place) -> Any:
        return append(at.client, begin(at.client, length), offset, data, **headers)

    return send


def second_writer(at: Place) -> Any:
    url = begin(at.client, 10)
    opened = services_of(at.client).uploads.open(url.rpartition("/")[2], 0)
    try:
        return append(at.client, url, 0, b"abc")
    finally:
        opened.close()


def with_upload(make: Callable[[Place], str], **values: Any) -> Case:
    return lambda at: at.client.post(ANALYSES, json={"slide": {"upload": make(at), **values}})


def unfinished(at: Place) -> str:
    return begin(at.client, 10).rpartition("/")[2]


def no_tus(at: Place) -> Any:
    return at.client.post(UPLOADS, headers={"Upload-Length": "10"})


def other_type(at: Place) -> Any:
    return at.client.patch(begin(at.client, 10), content=b"abc", headers={**TUS, "Upload-Offset": "0"})


def another_slide(at: Place) -> Any:
    wrong = hashlib.sha256(b"other").hexdigest()
    return append(at.client, begin(at.client, 3, sha256=wrong), 0, b"abc")


def zipped(make: Callable[[], bytes]) -> Case:
    def send(at: Place) -> Any:
        data = make()
        return append(at.client, begin(at.client, len(data), "slide.zip"), 0, data)

    return send


def wrong_checksum() -> str:
    return "sha1 " + base64.b64encode(hashlib.sha1(b"other").digest()).decode()


VIEW = {"width": 1200, "height": 900}

CASES: dict[str, Case] = {
    # a slide by its path
    "path-text": by_path(slides.text_named_svs),
    "path-cut": by_path(slides.truncated),
    "path-missing": by_path(slides.missing),
    "path-folder": by_path(slides.folder),
    "path-empty": by_path(slides.empty_file),
    "path-no-pixel-size": by_path(slides.no_pixel_size),
    "path-coarse": by_path(slides.overview_of_29_um),
    "path-outside": by_path(slides.outside_the_roots),
    "path-dots": by_path(slides.dots_out_of_the_root),
    "path-link": by_path(slides.link_out_of_the_root),
    "path-relative": of_path("slide.tif"),
    "path-not-mapped": of_path(r"S:\slides\a.svs"),
    "path-nul": of_path("/a\0b"),
    "path-long": of_path("/" + "x" * 4096),
    # what to do with it
    "model-unknown": with_(model="hcc-99x"),
    "model-version": with_(model="tiny-5x@9.9.9"),
    "model-dots": with_(model="../../etc"),
    "stride-other": with_(stride=17),
    "stride-fraction": with_(stride=16.5),
    "mode-unknown": with_(mode="quick"),
    "threshold-high": with_(threshold=1.5),
    "threshold-zero": with_(threshold=0),
    "threshold-text": with_(threshold="high"),
    "area-negative": with_(min_area_um2=-1),
    "mpp-zero": with_(mpp_um=0),
    "mpp-absurd": with_(mpp_um=5000),
    "mpp-coarse": with_(mpp_um=29),
    "region-empty": region(),
    "region-flat": region([[5, 5], [9, 9], [5, 5], [5, 5]]),
    "region-outside": region([[x + 9000, y] for x, y in SQUARE]),
    "region-bow-tie": region(BOW_TIE),
    "region-point": region(3, 4, kind="Point"),
    "region-text": with_(region={"type": "Polygon", "coordinates": "around here"}),
    "view-size": with_(client_view={"width": 700, "height": 900}),
    "view-scale": with_(client_view={**VIEW, "pixel_width_um": 0.25, "pixel_height_um": 0.25}),
    "view-zero": with_(client_view={"width": 0, "height": 900}),
    "view-half": with_(client_view={"width": 1200}),
    "identity-unknown": with_(identity={"patient": "Jane Doe"}),
    "identity-long": with_(identity={"accession": "x" * 201}),
    "priority-high": with_(priority=1000),
    "name-misspelt": with_(tresholt=0.5),
    # bodies
    "json-empty": body(b""),
    "json-broken": body(b"{"),
    "json-list": body(b"[]"),
    "json-no-slide": body(b"{}"),
    "json-nan": body(b'{"slide": {"path": "/a"}, "threshold": NaN}'),
    "json-no-text": body(b"\xff\xfe"),
    "json-deep": body(b'{"region": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "json-large": body(b'{"model": "' + b"x" * 70_000 + b'"}'),
    "mark-reused": marked("order-1", 0.4, 0.6),
    "mark-long": marked("x" * 256, 0.4),
    "type-form": body(b"slide=a", "application/x-www-form-urlencoded"),
    "type-none": body(b"slide=a", ""),
    "multipart-no-boundary": body(b"slide=a", "multipart/form-data"),
    "multipart-broken": body(b"nonsense", "multipart/form-data; boundary=b"),
    "multipart-other": parts(("photo", b"x")),
    "multipart-twice": parts(("file", b"x"), ("file", b"y")),
    "multipart-empty": parts(("file", b"")),
    "multipart-large": parts(("file", b"x" * (2 * MB + 1))),
    "multipart-text": parts(("file", b"These are notes.")),
    "multipart-and-path": parts(("file", b"x"), request={"slide": {"path": "/slides/b.tif"}}),
    # addresses
    "address-unknown": call("GET", "/api/v1/nothing"),
    "method-other": call("PUT", ANALYSES),
    "analysis-unknown": call("GET", f"{ANALYSES}/nobody"),
    "analysis-delete-unknown": call("DELETE", f"{ANALYSES}/nobody"),
    "events-unknown": call("GET", f"{ANALYSES}/nobody/events"),
    "contours-unknown": call("GET", f"{ANALYSES}/nobody/contours"),
    "list-state": call("GET", f"{ANALYSES}?state=sleeping"),
    "list-limit": call("GET", f"{ANALYSES}?limit=0"),
    "list-cursor": call("GET", f"{ANALYSES}?cursor=nonsense"),
    "model-address": call("GET", "/api/v1/models/nothing"),
    # results
    "contours-early": of_queued("contours"),
    "map-early": of_queued("probability-map"),
    "contours-threshold": of_finished("contours?threshold=2"),
    "contours-area": of_finished("contours?min_area_um2=-1"),
    "contours-frame": of_finished("contours?frame=mars"),
    "map-format": of_finished("probability-map?format=jpeg"),
    "map-frame": of_finished("probability-map?format=json&frame=mars"),
    # slides/resolve
    "resolve-nothing": resolve(),
    "resolve-half": resolve(path="/a", width=5),
    "resolve-negative": resolve(path="/a", width=-5, height=5),
    "resolve-misspelt": resolve(path="/a", hight=5),
    # uploads
    "tus-version": no_tus,
    "tus-no-length": new_upload(),
    "tus-length-text": new_upload(Upload_Length="ten"),
    "tus-length-zero": new_upload(Upload_Length="0"),
    "tus-length-deferred": new_upload(Upload_Defer_Length="1"),
    "tus-large": new_upload(Upload_Length=str(2 * MB + 1)),
    "tus-metadata": new_upload(Upload_Length="10", Upload_Metadata="filename !!!"),
    "tus-metadata-hash": new_upload(Upload_Length="10", Upload_Metadata=metadata(sha256="abc")),
    "tus-unknown": lambda at: append(at.client, f"{UPLOADS}/nobody", 0, b"abc"),
    "tus-offset": piece(offset=5),
    "tus-offset-text": piece(offset="here"),
    "tus-type": other_type,
    "tus-too-much": piece(b"x" * 11),
    "tus-checksum": piece(upload_checksum=wrong_checksum()),
    "tus-checksum-kind": piece(upload_checksum="crc32 AAAA"),
    "tus-checksum-whole": another_slide,
    "tus-two-writers": second_writer,
    "upload-unknown": with_upload(lambda at: "nobody"),
    "upload-unfinished": with_upload(unfinished),
    "upload-and-path": with_upload(lambda at: "nobody", path="/a"),
    "upload-text": with_upload(lambda at: send_whole(at.client, b"These are notes.", "notes.svs")),
    # zips
    "zip-dots": zipped(lambda: zips.zipped(("../a.svs", b"x"))),
    "zip-absolute": zipped(lambda: zips.zipped(("/etc/a.svs", b"x"))),
    "zip-link": zipped(lambda: zips.zipped((zips.special("a.svs", stat.S_IFLNK | 0o777), b"/etc/passwd"))),
    "zip-twice": zipped(lambda: zips.doctored(zips.zipped(("a.svs", b"x"), ("b.svs", b"y")), b"b.svs", b"a.svs")),
    "zip-case": zipped(lambda: zips.zipped(("a.svs", b"x"), ("A.SVS", b"y"))),
    "zip-large": zipped(lambda: zips.zipped(("a.svs", bytes(3 * MB)))),
    "zip-lying": zipped(zips.lying_about_its_size),
    "zip-encrypted": zipped(zips.encrypted),
    "zip-damaged": zipped(zips.damaged),
    "zip-no-slide": zipped(lambda: zips.zipped(("notes.txt", b"x"))),
    # callbacks
    "callback-private": with_(callback={"url": "http://10.0.0.1/"}),
    "callback-metadata": with_(callback={"url": "http://169.254.169.254/latest/meta-data"}),
    "callback-mapped": with_(callback={"url": "http://[::ffff:169.254.169.254]/"}),
    "callback-file": with_(callback={"url": "file:///etc/passwd"}),
    "callback-user": with_(callback={"url": "http://user:secret@127.0.0.1/"}),
    "callback-secret": with_(callback={"url": "http://127.0.0.1/", "secret_id": "nobody"}),
    "callback-secret-dots": with_(callback={"url": "http://127.0.0.1/", "secret_id": "../jobs.sqlite3"}),
    "callback-no-url": with_(callback={}),
    "deliveries-unknown": call("GET", f"{ANALYSES}/nobody/deliveries"),
    "zip-two-slides": zipped(lambda: zips.zipped(("a.svs", b"x"), ("b.svs", b"y"))),
    # what people say about results
    "choose-high": chosen(threshold=1.5, user="x"),
    "choose-text": chosen(threshold="high", user="x"),
    "choose-nobody": chosen(threshold=0.5),
    "choose-early": chosen(early=True, threshold=0.5, user="x"),
    "choose-unknown": lambda at: at.client.put(f"{ANALYSES}/nobody/threshold", json={"threshold": 0.5, "user": "x"}),
    "verdict-unknown": lambda at: at.client.post(f"{ANALYSES}/nobody/verdicts", json={"decision": "accepted", "user": "x"}),
    "verdict-nothing": accepted_nothing,
    "verdict-early": said({"decision": "accepted"}, early=True),
    "verdict-decision": said({"decision": "perhaps"}),
    "verdict-no-reason": said({"decision": "rejected"}),
    "verdict-blank-reason": said({"decision": "rejected", "reason": "  "}),
    "verdict-nobody": said({"decision": "accepted", "user": " "}),
    "verdict-long-name": said({"decision": "accepted", "user": "x" * 201}),
    "verdict-no-geometry": said({"decision": "edited"}),
    "verdict-geometry-too": said({"decision": "accepted", "geometry": {"type": "Polygon", "coordinates": [SQUARE]}}),
    "verdict-point": edited({"type": "Point", "coordinates": [3, 4]}),
    "verdict-text": edited("around here"),
    "verdict-rings": edited({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}),
    "verdict-outside": edited({"type": "Polygon", "coordinates": [[[x + 9000, y] for x, y in SQUARE]]}),
    "verdict-tangled": edited({"type": "Polygon", "coordinates": [tangled()]}),
    "verdict-threshold": said({"decision": "accepted", "threshold": 2}),
    "verdict-area": said({"decision": "accepted", "min_area_um2": -1}),
    "verdict-misspelt": said({"decision": "accepted", "tresholt": 0.5}),
    "verdict-form": said(b"decision=accepted", Content_Type="application/x-www-form-urlencoded"),
    "verdict-broken": said(b"{"),
    "verdict-deep": said(b'{"geometry": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "verdict-large": said(b'{"user": "' + b"x" * 70_000 + b'"}'),
    "verdict-mark-long": said({"decision": "accepted"}, Idempotency_Key="x" * 256),
    "verdict-mark-reused": two_verdicts_with_one_mark,
    "verdict-address": call("GET", "/api/v1/verdicts/nothing"),
    "verdicts-unknown": call("GET", f"{ANALYSES}/nobody/verdicts"),
    "verdicts-since": call("GET", "/api/v1/verdicts?since=yesterday"),
    "verdicts-limit": call("GET", "/api/v1/verdicts?limit=0"),
    "verdicts-cursor": call("GET", "/api/v1/verdicts?cursor=nonsense"),
    "script-host": lambda at: at.client.get("/qupath/hepamap.groovy", headers={"Host": "testserver:port"}),
}
