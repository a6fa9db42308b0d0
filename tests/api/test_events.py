"""Waiting for an analysis: server-sent events, Prefer: wait, and one look at the database for all who wait."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import psutil
import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from hepamap.api.app import create_app
from hepamap.api.routes.events import _events
from hepamap.api.waiting import JobWatch, preferred_wait_s
from hepamap.jobs.errors import JobStoreError
from hepamap.jobs.job import Job, JobProgress, JobResult
from hepamap.jobs.states import JobState
from hepamap.jobs.store import JobStore
from hepamap.settings import Settings
from tests.api.conftest import post, services_of, work
from tests.api.server_process import ServerProcess, serving
from tests.api.test_bad_input import check_problem

RESULT = JobResult("ok", (), "nowhere")


@dataclass(frozen=True, slots=True)
class Event:
    kind: str
    id: str
    data: Any


@pytest.fixture
def server(settings: Settings, tmp_path: Path) -> Iterator[ServerProcess]:
    with serving(settings.model_copy(update={"events_heartbeat_s": 0.1}), tmp_path / "log") as process:
        yield process


@pytest.fixture
def store(server: ServerProcess, settings: Settings) -> Iterator[JobStore]:
    store = JobStore.open(settings.database_path)
    yield store
    store.close()


def ask(server: ServerProcess, slide: Path, **others: Any) -> str:
    body = {"slide": {"path": str(slide)}, **others}
    response = server.ask("POST", "/api/v1/analyses", json=body)
    assert response.status_code == 202, response.text
    return str(response.json()["links"]["self"])


@contextmanager
def following(server: ServerProcess, analysis: str, last: str = "") -> Iterator[Iterator[Event | str]]:
    """The events of an analysis, and comments as plain text, as they come."""
    headers = {"Last-Event-ID": last} if last else {}
    with httpx.stream("GET", f"{server.url}{analysis}/events", headers=headers, trust_env=False, timeout=60) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        yield _parsed(response.iter_lines())


def _parsed(lines: Iterator[str]) -> Iterator[Event | str]:
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            yield line
        elif line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "event" in fields:
            yield Event(fields["event"], fields.get("id", ""), json.loads(fields["data"]))
            fields = {}
        else:
            fields = {}


def next_event(events: Iterator[Event | str]) -> Event:
    return next(event for event in events if isinstance(event, Event))


def test_an_analysis_is_followed_to_its_end(server: ServerProcess, store: JobStore, slide: Path) -> None:
    analysis = ask(server, slide)
    with following(server, analysis) as events:
        first = next_event(events)
        assert (first.kind, first.data["state"], first.data["progress"]["stage"]) == ("state", "queued", "queued")
        claimed = store.claim()
        assert claimed is not None
        running = next_event(events)
        assert (running.kind, running.data["state"]) == ("state", "running")
        store.beat(claimed, JobProgress(25, 100, "classifying"))
        progress = next_event(events)
        assert (progress.kind, progress.data["progress"]["fraction"]) == ("progress", 0.25)
        assert progress.data["progress"]["eta_s"] is not None
        store.succeed(claimed, RESULT)
        end = next_event(events)
        assert (end.kind, end.data["state"], end.data["outcome"]) == ("end", "succeeded", "ok")
        assert list(events) == []
    assert len({first.id, running.id, progress.id, end.id}) == 4
    headers = {"Last-Event-ID": end.id}
    assert server.ask("GET", f"{analysis}/events", headers=headers).status_code == 204
    with following(server, analysis, progress.id) as events:
        assert [event.kind for event in events if isinstance(event, Event)] == ["end"]


def test_who_comes_back_is_told_only_what_is_new(server: ServerProcess, store: JobStore, slide: Path) -> None:
    analysis = ask(server, slide)
    with following(server, analysis) as events:
        seen = next_event(events)
    with following(server, analysis, seen.id) as events:
        assert next(events) == ": still here"
        assert store.claim() is not None
        assert next_event(events).data["state"] == "running"


def test_cancelled_and_deleted_ones_end_too(server: ServerProcess, store: JobStore, slide: Path) -> None:
    analysis = ask(server, slide)
    with following(server, analysis) as events:
        next_event(events)
        server.ask("DELETE", analysis)
        end = next_event(events)
        assert (end.kind, end.data["state"]) == ("end", "cancelled")


def test_many_followers_leave_the_server_free_for_others(server: ServerProcess, store: JobStore, slide: Path) -> None:
    analysis = ask(server, slide)
    ends: list[str] = []
    told = threading.Barrier(61)

    def follow() -> None:
        with following(server, analysis) as events:
            next_event(events)
            told.wait(60)
            ends.append([event for event in events if isinstance(event, Event)][-1].kind)

    threads = [threading.Thread(target=follow) for _ in range(60)]
    for thread in threads:
        thread.start()
    told.wait(60)
    assert server.ask("GET", "/health/live").status_code == 200
    assert server.ask("GET", analysis).json()["state"] == "queued"
    server.ask("DELETE", analysis)
    for thread in threads:
        thread.join()
    assert ends == ["end"] * 60


def test_a_server_that_stops_lets_its_followers_go(server: ServerProcess, slide: Path, tmp_path: Path) -> None:
    analysis = ask(server, slide)
    with following(server, analysis) as events:
        seen = next_event(events)
        os.kill(server.pid, signal.SIGTERM)
        # The stream ends as streams end: a line that is cut would raise here.
        assert [event for event in events if isinstance(event, Event)] == []
    assert seen.data["state"] == "queued"
    psutil.Process(server.pid).wait(30)
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_events_of_nothing(client: TestClient) -> None:
    check_problem(client.get("/api/v1/analyses/nobody/events"), 404, "analysis_not_found")


def some_job(client: TestClient, slide: Path) -> Job:
    job = services_of(client).store.get(post(client, slide)["id"])
    assert job is not None
    return job


def test_a_database_that_goes_away_does_not_end_the_stream(client: TestClient, slide: Path) -> None:
    job = some_job(client, slide)
    answers: list[Job | JobStoreError | None] = [JobStoreError("gone", cure="wait"), JobStoreError("gone", cure="wait"), None]

    def get(_: str) -> Job | None:
        answer = answers.pop(0)
        if isinstance(answer, JobStoreError):
            raise answer
        return answer

    services = replace(services_of(client), watch=JobWatch(get, interval_s=0))

    async def collect() -> bytes:
        return b"".join([piece async for piece in _events(job, services, "")])

    text = anyio.run(collect).decode()
    assert text.count("event: state") == 1
    assert text.endswith("event: gone\ndata: {}\n\n")
    assert answers == []


def test_one_look_answers_all_who_wait(client: TestClient, slide: Path) -> None:
    job = some_job(client, slide)
    looks: list[str] = []

    def get(job_id: str) -> Job | None:
        looks.append(job_id)
        return job

    async def wait() -> None:
        watch = JobWatch(get, interval_s=0.01)
        async with anyio.create_task_group() as group:
            for number in range(300):
                group.start_soon(watch.look, str(number % 3))

    anyio.run(wait)
    assert sorted(looks) == ["0", "1", "2"]


def test_a_client_that_goes_does_not_take_the_answer_from_another(client: TestClient, slide: Path) -> None:
    job = some_job(client, slide)

    async def wait() -> Job | None:
        watch = JobWatch(lambda job_id: job, interval_s=0.05)
        found: list[Job | None] = []

        async def stay() -> None:
            found.append(await watch.look(job.id))

        async with anyio.create_task_group() as group:
            group.start_soon(stay)
            with anyio.move_on_after(0.001):
                await watch.look(job.id)
        return found[0]

    assert anyio.run(wait) == job


def test_a_look_that_crashes_leaves_nobody_waiting(client: TestClient, slide: Path) -> None:
    job = some_job(client, slide)

    def get(job_id: str) -> Job | None:
        if job_id == "0":
            raise ZeroDivisionError
        return job

    async def wait(watch: JobWatch) -> list[BaseException | Job | None]:
        with anyio.fail_after(10):
            looks = [watch.look(str(number % 2)) for number in range(4)]
            return [*await asyncio.gather(*looks, return_exceptions=True), await watch.look("1")]

    first, second, third, fourth, later = asyncio.run(wait(JobWatch(get, interval_s=0)))
    assert [type(first), type(third)] == [ZeroDivisionError] * 2
    assert second == fourth == later == job


def test_a_round_that_crashes_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any) -> None:
        raise ZeroDivisionError

    async def wait() -> list[BaseException | Job | None]:
        watch = JobWatch(lambda _: None, interval_s=0)
        with monkeypatch.context() as patch, anyio.fail_after(10):
            patch.setattr(watch, "_find", crash)
            crashed = await asyncio.gather(*(watch.look(str(number)) for number in range(3)), return_exceptions=True)
        return [*crashed, await watch.look("0")]

    with capture_logs() as logs:
        *crashed, later = asyncio.run(wait())
    assert [type(error) for error in crashed] == [ZeroDivisionError] * 3
    assert later is None
    assert [entry["event"] for entry in logs] == ["look_crashed"]


def test_a_slow_database_does_not_make_waiting_longer_nor_take_all_threads(client: TestClient, slide: Path) -> None:
    job = some_job(client, slide)
    freed = threading.Event()
    looking = [0, 0]  # now, and at most

    def get(_: str) -> Job | None:
        looking[0] += 1
        looking[1] = max(looking)
        freed.wait(20)
        looking[0] -= 1
        return job

    async def wait() -> list[Job]:
        watch = JobWatch(get, interval_s=0)
        try:
            with anyio.fail_after(5):
                waits = [watch.until_finished(replace(job, id=str(number)), 0.1 + number / 50) for number in range(20)]
                return await asyncio.gather(*waits)
        finally:
            freed.set()

    assert [found.id for found in asyncio.run(wait())] == [str(number) for number in range(20)]
    assert looking[1] == 1


def test_a_database_that_is_away_is_asked_once_in_a_round() -> None:
    asked: list[str] = []

    def get(job_id: str) -> Job | None:
        asked.append(job_id)
        raise JobStoreError("gone", cure="wait")

    async def wait() -> list[BaseException | Job | None]:
        watch = JobWatch(get, interval_s=0)
        return await asyncio.gather(*(watch.look(str(number)) for number in range(50)), return_exceptions=True)

    assert [type(error) for error in asyncio.run(wait())] == [JobStoreError] * 50
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("wait=10", 10),
        ("respond-async, wait=10", 10),
        ("WAIT = 7; foo=bar", 7),
        ('wait="5"', 5),
        ("wait", None),
        ("wait=soon", None),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("return=minimal", None),
    ],
)
def test_preferences(header: str | None, seconds: int | None) -> None:
    assert preferred_wait_s(header) == seconds


def finished_meanwhile(client: TestClient, request: Callable[[], Any]) -> Any:
    """A request while a worker is at work beside it."""
    done = threading.Event()

    def work_when_there_is_something() -> None:
        while not done.is_set() and not any(
            job.state is JobState.QUEUED for job in services_of(client).store.page(state=JobState.QUEUED).jobs
        ):
            done.wait(0.02)
        work(client)

    thread = threading.Thread(target=work_when_there_is_something)
    thread.start()
    try:
        return request()
    finally:
        done.set()
        thread.join()


def test_a_request_waits_for_its_analysis(client: TestClient, slide: Path) -> None:
    body = {"slide": {"path": str(slide)}}
    headers = {"Prefer": "wait=30"}
    response = finished_meanwhile(client, lambda: client.post("/api/v1/analyses", json=body, headers=headers))
    assert (response.status_code, response.json()["state"]) == (200, "succeeded")
    assert response.headers["preference-applied"] == "wait=30"
    assert response.headers["location"] == response.json()["links"]["self"]


def test_a_look_waits_for_the_end(client: TestClient, slide: Path) -> None:
    url = post(client, slide)["links"]["self"]
    response = finished_meanwhile(client, lambda: client.get(url, headers={"Prefer": "wait=30"}))
    assert (response.status_code, response.json()["state"]) == (200, "succeeded")
    assert response.headers["preference-applied"] == "wait=30"


def test_waiting_has_an_end(settings: Settings, slide: Path) -> None:
    with TestClient(create_app(settings.model_copy(update={"wait_max_s": 1.0}))) as client:
        body = {"slide": {"path": str(slide)}}
        response = client.post("/api/v1/analyses", json=body, headers={"Prefer": "wait=600"})
        assert (response.status_code, response.json()["state"]) == (202, "queued")
        assert response.headers["preference-applied"] == "wait=1"
        plain = client.get(response.json()["links"]["self"], headers={"Prefer": "wait=later"})
        assert (plain.status_code, "preference-applied" in plain.headers) == (200, False)
