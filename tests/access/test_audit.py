from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from hepamap.access.audit import BEGINNING, AuditEvent, AuditHead, AuditTrail, entry_hash
from hepamap.access.errors import AuditBrokenError
from tests.clock import Clock

EVENT = AuditEvent("key:1", "get_contours", 200, object="a1", slide="f1", request_id="r1")


@pytest.fixture
def trail(engine: Engine, clock: Clock) -> AuditTrail:
    return AuditTrail(engine, clock=clock)


def fill(trail: AuditTrail, count: int) -> None:
    for number in range(count):
        trail.append(AuditEvent("key:1", "get_analysis", 200, object=f"analysis-{number}"))


def execute(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def take_the_guards_away(engine: Engine) -> None:
    """What somebody can do who owns the tables."""
    if engine.dialect.name == "sqlite":
        execute(engine, *(f"DROP TRIGGER audit_entries_no_{act}" for act in ("update", "delete")))
    else:
        execute(engine, "DROP TRIGGER audit_entries_no_change ON audit_entries")


def test_the_hash_is_the_one_that_is_described(trail: AuditTrail) -> None:
    first = trail.append(EVENT)
    content = (
        '{"action":"get_contours","actor":"key:1","at":"2026-01-01T00:00:00+00:00","object":"a1",'
        '"request_id":"r1","seq":1,"slide":"f1","status":200}'
    )
    assert first.hash == hashlib.sha256(f"{'0' * 64}\n{content}".encode()).hexdigest()
    second = trail.append(EVENT)
    assert second.hash == entry_hash(first.hash, 2, second.at, EVENT)
    assert trail.verify() == AuditHead(2, second.hash)


def test_an_empty_trail_is_whole(trail: AuditTrail) -> None:
    assert trail.verify() == AuditHead(0, BEGINNING)


def test_what_was_written_comes_back(trail: AuditTrail, clock: Clock) -> None:
    clock.advance(microseconds=7)  # a time with another number of digits
    written = [trail.append(EVENT), trail.append(AuditEvent("oidc:Ärztin", "list_analyses", 403))]
    assert list(trail.entries()) == written
    assert trail.page(after=1) == (written[1],)
    assert json.loads(json.dumps(written[0].to_json()))["at"] == "2026-01-01T00:00:00.000007+00:00"


SWAP = (
    "UPDATE audit_entries SET seq = -1 WHERE seq = 3",
    "UPDATE audit_entries SET seq = 3 WHERE seq = 4",
    "UPDATE audit_entries SET seq = 4 WHERE seq = -1",
)


@pytest.mark.parametrize(
    "statement", ["UPDATE audit_entries SET actor = 'key:2' WHERE seq = 3", "DELETE FROM audit_entries WHERE seq = 3"]
)
def test_the_database_refuses_changes(trail: AuditTrail, engine: Engine, statement: str) -> None:
    fill(trail, 5)
    with pytest.raises(DBAPIError, match="appended only"):
        execute(engine, statement)
    assert trail.verify().seq == 5


@pytest.mark.parametrize(
    ("statements", "first_broken"),
    [
        (["UPDATE audit_entries SET actor = 'key:2' WHERE seq = 3"], "entry 3 is not as it was written"),
        (["UPDATE audit_entries SET at = '2026-01-01T00:00:01+00:00' WHERE seq = 1"], "entry 1 is not as it was written"),
        (["UPDATE audit_entries SET object = NULL WHERE seq = 5"], "entry 5 is not as it was written"),
        (["UPDATE audit_entries SET hash = 'x' WHERE seq = 5"], "entry 5 is not as it was written"),
        (["DELETE FROM audit_entries WHERE seq = 2"], "entry 2 is missing"),
        (["DELETE FROM audit_entries WHERE seq >= 4"], "entry 4 is missing, and all up to 5"),
        (["DELETE FROM audit_entries"], "entry 1 is missing, and all up to 5"),
        (["DELETE FROM audit_head"], "end was removed"),
        (SWAP, "entry 3 is not as it was written"),
        # A row is removed, and the ones behind it are moved up to close the gap.
        (
            ["DELETE FROM audit_entries WHERE seq = 4", "UPDATE audit_entries SET seq = 4 WHERE seq = 5"],
            "entry 4 is not as it was written",
        ),
        (
            [
                "INSERT INTO audit_entries (seq, at, actor, action, object, status, hash) "
                "SELECT 6, at, actor, action, object, status, hash FROM audit_entries WHERE seq = 5"
            ],
            "entry 6 is not as it was written",
        ),
    ],
)
def test_tampering_is_found(trail: AuditTrail, engine: Engine, statements: list[str], first_broken: str) -> None:
    fill(trail, 5)
    trail.verify()
    take_the_guards_away(engine)
    execute(engine, *statements)
    with pytest.raises(AuditBrokenError, match=first_broken):
        trail.verify()


def rewrite(engine: Engine, trail: AuditTrail, upto: int) -> None:
    """What somebody does who knows the rule and can write to the database: a shorter trail, with right hashes."""
    kept = list(trail.page(limit=upto))
    take_the_guards_away(engine)
    execute(
        engine,
        f"DELETE FROM audit_entries WHERE seq > {upto}",
        f"UPDATE audit_head SET seq = {upto}, hash = '{kept[-1].hash}'",
    )


def test_a_noted_end_finds_what_the_trail_alone_cannot(trail: AuditTrail, engine: Engine) -> None:
    fill(trail, 5)
    noted = trail.head()
    fill(trail, 2)
    assert trail.verify(noted).seq == 7
    rewrite(engine, trail, upto=3)
    assert trail.verify().seq == 3
    with pytest.raises(AuditBrokenError, match="entry 4 is missing, and all up to 5"):
        trail.verify(noted)
    fill(trail, 4)  # as long as before, with other contents
    with pytest.raises(AuditBrokenError, match="entry 5 does not have the hash that was noted"):
        trail.verify(noted)


APPEND = """
import sys
from pathlib import Path
from hepamap.access.audit import AuditEvent, AuditTrail
from hepamap.jobs.database import open_database
place = sys.argv[1]
trail = AuditTrail(open_database(place if "://" in place else Path(place)))
for number in range(100):
    trail.append(AuditEvent(f"process:{sys.argv[2]}", "append", 200, object=str(number)))
"""


def test_processes_that_append_together_do_not_fork_the_chain(trail: AuditTrail, place: Path | str) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", APPEND, str(place), str(number)]) for number in range(3)]
    fill(trail, 20)
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert trail.verify().seq == 320
    for number in range(3):
        own = [entry.event.object for entry in trail.entries() if entry.event.actor == f"process:{number}"]
        assert own == [str(index) for index in range(100)]
