"""The database stores an analysis, and its answer is lost on the way: the slide that was sent must be there all the same."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event

from hepamap.api.app import create_app
from hepamap.settings import Settings
from tests.api.conftest import services_of, work
from tests.api.test_bad_input import check_problem
from tests.api.test_sharing import MARK, get, uploaded


@pytest.fixture(params=["sqlite", "postgresql"])
def client(request: pytest.FixtureRequest, settings: Settings) -> Iterator[TestClient]:
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").new_database()
        settings = settings.model_copy(update={"database_url": url})
    with TestClient(create_app(settings)) as client:
        yield client


def lose_answer(client: TestClient, monkeypatch: pytest.MonkeyPatch, *, stored: bool = True) -> None:
    """The next transaction that stores a job ends, or not, and the line breaks before anybody hears of it."""
    engine = services_of(client).store.engine
    commit: Callable[[Any], None] = engine.dialect.do_commit
    broken: type[Exception] = psycopg.OperationalError if engine.dialect.name == "postgresql" else sqlite3.OperationalError
    storing = threading.local()
    lost: list[bool] = []

    def look(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO jobs "):
            storing.job = True
            if not stored and not lost:
                lost.append(True)
                raise broken("the connection is lost")

    def do_commit(connection: Any) -> None:
        commit(connection)
        if getattr(storing, "job", False) and not lost:
            lost.append(True)
            raise broken("the connection is lost")

    event.listen(engine, "before_cursor_execute", look)
    monkeypatch.setattr(engine.dialect, "do_commit", do_commit)


def uploads(client: TestClient) -> list[Path]:
    return list(services_of(client).settings.uploads_dir.iterdir())


@pytest.mark.parametrize("headers", [None, MARK])
def test_a_slide_whose_analysis_was_stored_is_kept_though_nobody_heard_of_it(
    client: TestClient, slide_bytes: bytes, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str] | None
) -> None:
    lose_answer(client, monkeypatch)
    check_problem(uploaded(client, slide_bytes, headers), 503, "job_store_unavailable")
    again = uploaded(client, slide_bytes, headers)
    assert again.status_code == 202
    assert len(uploads(client)) == 1
    work(client)
    assert services_of(client).store.claim() is None
    assert get(client, again.json())["state"] == "succeeded"


def test_a_slide_whose_analysis_was_certainly_not_stored_goes(
    client: TestClient, slide_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_answer(client, monkeypatch, stored=False)
    check_problem(uploaded(client, slide_bytes), 503, "job_store_unavailable")
    assert uploads(client) == []
    assert services_of(client).store.page().jobs == ()


@pytest.mark.parametrize("headers", [None, MARK])
def test_a_slide_that_has_gone_comes_back_with_who_sends_it_again(
    client: TestClient, slide_bytes: bytes, headers: dict[str, str] | None
) -> None:
    first = uploaded(client, slide_bytes, headers).json()
    for folder in uploads(client):
        shutil.rmtree(folder)
    second = uploaded(client, slide_bytes, headers).json()
    assert (second["id"] == first["id"]) == (headers is not None)
    work(client)
    assert [get(client, analysis)["state"] for analysis in (first, second)] == ["succeeded", "succeeded"]
    assert services_of(client).store.claim() is None
    for analysis in {first["id"], second["id"]}:
        client.delete(f"/api/v1/analyses/{analysis}").raise_for_status()
    assert uploads(client) == []
