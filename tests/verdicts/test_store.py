from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from hepamap.jobs.database import open_database
from hepamap.jobs.errors import IdempotencyKeyReusedError
from hepamap.jobs.job import Idempotency, Question
from hepamap.jobs.store import JobStore
from hepamap.verdicts.store import VerdictStore
from hepamap.verdicts.thresholds import ThresholdStore
from tests.clock import Clock
from tests.verdicts.opinions import MODEL, SLIDE, box, opinion, say


def test_what_was_said_comes_back(engine: Engine, clock: Clock) -> None:
    store = VerdictStore(engine, clock=clock)
    region = {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]]]}
    slide = replace(SLIDE, region_l0=region, case="0123456789abcdef")
    said = say(store, "job-1", box(0, 0, 4, 4), slide, reason="Ärger mit µm")
    found = store.get(said.id)
    assert found is not None
    assert replace(found, opinion=replace(found.opinion, geometry_l0=None)) == said
    assert found.opinion.geometry_l0 == {"type": "MultiPolygon", "coordinates": [[[[0, 0], [0, 4], [4, 4], [4, 0], [0, 0]]]]}
    assert (found.slide, found.model, found.at) == (slide, MODEL, datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC))
    rejected = say(store, "job-1", reason="No.")
    assert store.of_job("job-1") == (said, rejected)
    again = store.get(rejected.id)
    assert again is not None
    assert again.opinion.geometry_l0 is None
    assert (store.get("nobody"), store.of_job("nobody")) == (None, ())


def test_pages_follow_each_other_without_gaps(engine: Engine) -> None:
    same_moment = datetime(2026, 1, 1, tzinfo=UTC)
    store = VerdictStore(engine, clock=lambda: same_moment)
    said = {say(store, f"job-{number}").id for number in range(5)}
    seen: list[str] = []
    after = None
    while True:
        page = store.page(after=after, limit=2)
        seen += [verdict.id for verdict in page.verdicts]
        if not page.has_more:
            break
        after = (page.verdicts[-1].at, page.verdicts[-1].id)
    assert seen == sorted(said)
    assert store.page(since=same_moment).verdicts == store.page().verdicts
    assert store.page(since=same_moment + timedelta(microseconds=1)).verdicts == ()


def test_a_mark_makes_one_verdict_however_often_it_comes(engine: Engine) -> None:
    store = VerdictStore(engine)
    mark = Idempotency("key:1 a", "hash-1")
    found = []

    def add() -> None:
        found.append(store.add("job-1", opinion(), SLIDE, MODEL, actor="key:1", idempotency=mark))

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert store.page().verdicts == (found[0],)
    assert {verdict.id for verdict in found} == {found[0].id}
    assert store.find_repeated(mark) == found[0]
    assert store.find_repeated(Idempotency("key:1 b", "hash-1")) is None
    with pytest.raises(IdempotencyKeyReusedError):
        store.add("job-1", opinion(), SLIDE, MODEL, actor="key:1", idempotency=Idempotency("key:1 a", "hash-2"))


def test_chosen_thresholds_go_with_their_jobs_and_verdicts_stay(engine: Engine, clock: Clock) -> None:
    jobs = JobStore(engine)
    job = jobs.submit(Question(kind="k", key="key", work={}, payload={})).job
    thresholds, verdicts = ThresholdStore(engine, clock=clock), VerdictStore(engine)
    first = thresholds.choose(job.id, 0.5, user="a", actor="key:1")
    second = thresholds.choose(job.id, 0.6, user="b", actor="key:1")
    assert first is not None
    assert second is not None
    assert thresholds.of([job.id, "nobody"]) == {job.id: second}
    assert (second.threshold, second.user, second.at - first.at) == (0.6, "b", timedelta(seconds=1))
    assert thresholds.choose("nobody", 0.5, user="a", actor="key:1") is None
    said = say(verdicts, job.id)
    jobs.request_cancel(job.id)
    assert jobs.delete_finished(job.id) is not None
    assert thresholds.of([job.id]) == {}
    assert verdicts.of_job(job.id) == (said,)


def test_a_database_of_before_gets_the_tables(tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine

    path = tmp_path / "jobs.sqlite3"
    config = Config()
    config.set_main_option("script_location", "hepamap.jobs:migrations")
    old = create_engine(f"sqlite:///{path}")
    with old.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
    old.dispose()
    engine = open_database(path)
    assert VerdictStore(engine).page().verdicts == ()
    engine.dispose()
