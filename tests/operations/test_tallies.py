from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hepamap.jobs.store import JobStore
from hepamap.operations.tallies import Tally, add, read


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore.open(tmp_path / "jobs.sqlite3")
    yield store
    store.close()


def test_counts_and_sums(store: JobStore) -> None:
    with store.writing() as session:
        add(session, "seconds", [("reading", 1.5), ("writing", 4.0), ("reading", 2.5)])
        add(session, "other", [("reading", 1.0)])
    with store.writing() as session:
        add(session, "seconds", [("reading", 6.0)])
    with store.reading() as session:
        assert read(session) == {
            "other": (Tally("reading", 1, 1.0),),
            "seconds": (Tally("reading", 3, 10.0), Tally("writing", 1, 4.0)),
        }


def test_what_is_rolled_back_does_not_count(store: JobStore) -> None:
    def fail() -> None:
        with store.writing() as session:
            add(session, "seconds", [("reading", 1.0)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with store.reading() as session:
        assert read(session) == {}


def test_many_that_count_at_once_lose_nothing(store: JobStore) -> None:
    def count() -> None:
        for _ in range(20):
            with store.writing() as session:
                add(session, "seconds", [("b", 1.0), ("a", 0.5)])

    threads = [threading.Thread(target=count) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.reading() as session:
        assert read(session)["seconds"] == (Tally("a", 100, 50.0), Tally("b", 100, 100.0))
