from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Engine

from hepamap.access.audit import AuditEntry, AuditEvent, AuditTrail
from hepamap.access.recurring import Recurring
from hepamap.jobs.errors import JobStoreError

REFUSED = AuditEvent("anonymous", "refused", 401)
POLL = AuditEvent("key:1", "get_analysis", 200, object="a1")


@pytest.fixture
def trail(engine: Engine) -> AuditTrail:
    return AuditTrail(engine)


def actions(trail: AuditTrail) -> list[str]:
    return [entry.event.action for entry in trail.entries()]


def test_the_first_is_written_at_once_and_the_others_are_counted(trail: AuditTrail) -> None:
    polls = Recurring(trail, most=10)
    for number in range(5):
        polls.append(replace(POLL, request_id=str(number)), POLL)
    polls.append(replace(POLL, object="a2"), replace(POLL, object="a2"))
    assert [entry.event.request_id for entry in trail.entries()] == ["0", None]
    polls.flush()
    polls.flush()
    assert [entry.event for entry in trail.entries()][2:] == [replace(POLL, action="get_analysis+4")]
    polls.append(POLL, POLL)
    polls.flush()
    assert actions(trail) == ["get_analysis", "get_analysis", "get_analysis+4", "get_analysis"]
    assert trail.verify().seq == 4


def test_more_origins_than_can_be_told_apart_count_as_one(trail: AuditTrail) -> None:
    strangers = Recurring(trail, most=3)
    for _ in range(2):
        for number in range(50):
            strangers.append(REFUSED, REFUSED, origin=str(number))
    strangers.flush()
    assert sorted(actions(trail)) == ["refused"] * 4 + ["refused+1"] * 3 + ["refused+93"]


def test_events_that_cannot_be_told_apart_are_each_written(trail: AuditTrail) -> None:
    polls = Recurring(trail, most=1)
    for _ in range(2):
        for name in ("a1", "a2"):
            polls.append(replace(POLL, object=name), replace(POLL, object=name))
    polls.flush()
    assert actions(trail) == ["get_analysis"] * 3 + ["get_analysis+1"]


def test_what_cannot_be_written_is_not_counted_and_what_was_counted_is_not_lost(
    trail: AuditTrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: AuditEvent) -> AuditEntry:
        raise JobStoreError("gone", cure="wait")

    polls = Recurring(trail, most=10)
    for _ in range(3):
        polls.append(POLL, POLL)
    with monkeypatch.context() as away:
        away.setattr(trail, "append", fail)
        with pytest.raises(JobStoreError):
            polls.flush()
        for _ in range(2):
            with pytest.raises(JobStoreError):
                polls.append(POLL, POLL)
    polls.append(POLL, POLL)
    polls.append(POLL, POLL)
    polls.flush()
    assert actions(trail) == ["get_analysis", "get_analysis", "get_analysis+3"]
