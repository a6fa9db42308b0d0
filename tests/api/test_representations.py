"""Answers that the client has already are not sent again; those that pack well are sent packed."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from hepamap.api.representations import etag_of, has_it
from hepamap.jobs.job import JobProgress
from tests.api.conftest import post, services_of, work
from tests.api.test_bad_input import check_problem


@pytest.fixture
def analysis(client: TestClient, slide: Path) -> Any:
    answer = post(client, slide, min_area_um2=0)
    work(client)
    return answer


QUESTIONS = [
    "contours",
    "contours?threshold=0.7",
    "contours?min_area_um2=5",
    "contours?frame=level0",
    "probability-map",
    "probability-map?format=color",
    "probability-map?format=ome-tiff",
    "probability-map?format=npy",
]


def test_what_the_client_has_is_not_sent_again(client: TestClient, analysis: Any) -> None:
    tags = set()
    for question in QUESTIONS:
        url = f"{analysis['links']['self']}/{question}"
        first = client.get(url)
        tag = first.headers["etag"]
        tags.add(tag)
        again = client.get(url, headers={"If-None-Match": f'"other", {tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert client.get(url, headers={"If-None-Match": '"other"'}).content == first.content
    assert len(tags) == len(QUESTIONS)


def test_an_analysis_that_changes_changes_its_tag(client: TestClient, slide: Path) -> None:
    url = post(client, slide)["links"]["self"]
    queued = client.get(url).headers["etag"]
    assert client.get(url, headers={"If-None-Match": queued}).status_code == 304
    work(client)
    done = client.get(url, headers={"If-None-Match": queued})
    assert (done.status_code, done.json()["state"]) == (200, "succeeded")
    assert client.get(url, headers={"If-None-Match": done.headers["etag"]}).status_code == 304


def test_the_time_that_is_left_changes_no_tag(client: TestClient, slide: Path) -> None:
    url = post(client, slide)["links"]["self"]
    store = services_of(client).store
    work = store.claim()
    assert work is not None
    store.beat(work, JobProgress(1, 4, "classifying"))
    time.sleep(0.3)
    first = client.get(url)
    time.sleep(0.3)
    assert client.get(url).json()["progress"]["eta_s"] > first.json()["progress"]["eta_s"]
    assert client.get(url, headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    store.beat(work, JobProgress(2, 4, "classifying"))
    assert client.get(url, headers={"If-None-Match": first.headers["etag"]}).status_code == 200


def test_a_deleted_one_is_gone_whatever_the_client_has(client: TestClient, analysis: Any) -> None:
    url = analysis["links"]["contours"]
    tag = client.get(url).headers["etag"]
    client.delete(analysis["links"]["self"])
    check_problem(client.get(url, headers={"If-None-Match": tag}), 404, "analysis_not_found")


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [("gzip", True), ("br, gzip;q=0.5", True), ("*", True), ("identity", False), ("gzip;q=0", False), ("gzip; q=0.0, br", False)],
)
def test_contours_are_packed_for_those_who_unpack(client: TestClient, analysis: Any, accepted: str, packed: bool) -> None:
    plain = client.get(analysis["links"]["contours"], headers={"Accept-Encoding": "identity"})
    response = client.get(analysis["links"]["contours"], headers={"Accept-Encoding": accepted})
    assert (response.headers.get("content-encoding") == "gzip") is packed
    assert response.json() == plain.json()
    assert response.headers["vary"] == "Accept-Encoding"
    assert response.headers["etag"] == plain.headers["etag"]
    with client.stream("GET", analysis["links"]["contours"], headers={"Accept-Encoding": accepted}) as raw:
        sent = b"".join(raw.iter_raw())
    assert int(raw.headers["content-length"]) == len(sent)
    assert json.loads(gzip.decompress(sent) if packed else sent) == plain.json()


def test_tags_are_compared_as_they_are_meant() -> None:
    tag = etag_of("a", 1)
    assert tag != etag_of("a", 2)
    assert has_it({"if-none-match": tag}, tag)
    assert has_it({"if-none-match": tag.removeprefix("W/")}, tag)
    assert has_it({"if-none-match": "*"}, tag)
    assert not has_it({"if-none-match": tag[:-3] + '"'}, tag)
    assert not has_it({}, tag)
