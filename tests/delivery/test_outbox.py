from __future__ import annotations

import json
import threading
from datetime import UTC, datetime

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from hepamap.delivery.outbox import Attempt, Delivery, DeliveryState, Outbox, enqueue
from tests.delivery.conftest import Clock, finished_job, only, put

URL = "https://lis.example.org/hook"
FAILED = Attempt(datetime(2026, 1, 1, tzinfo=UTC), 0.5, 500, "the answer was 500")
DONE = Attempt(datetime(2026, 1, 1, tzinfo=UTC), 0.5, 204, None)


def test_a_finished_job_with_a_callback_is_told_once(outbox: Outbox, engine: Engine) -> None:
    put(engine, URL)
    with Session(engine) as session, session.begin():
        enqueue(session, [finished_job("b")])
    delivery = only(outbox.take(10))
    assert (delivery.job_id, delivery.url, delivery.secret_id, delivery.attempts) == ("a", URL, "default", 1)
    body = json.loads(delivery.body)
    assert body["analysis"] == {"id": "a", "state": "succeeded", "outcome": "ok", "error": None}
    assert (body["event"], body["delivery"]) == ("analysis.finished", delivery.id)
    assert outbox.settle(delivery, DONE) is DeliveryState.DELIVERED
    assert outbox.take(10) == []


def test_what_did_not_happen_is_not_told(outbox: Outbox, engine: Engine) -> None:
    with Session(engine) as session:
        enqueue(session, [finished_job("a", {"url": URL})])
        session.flush()
        session.rollback()
    assert outbox.take(10) == []


def test_what_one_has_taken_another_does_not_get_until_the_first_has_died(outbox: Outbox, engine: Engine, clock: Clock) -> None:
    put(engine, URL)
    first = only(outbox.take(10))
    assert outbox.take(10) == []
    clock.advance(121)
    second = only(outbox.take(10))
    assert (second.id, second.attempts) == (first.id, 2)
    # The first one lives after all: what it has to say comes too late.
    outbox.settle(first, DONE)
    assert only(outbox.of_job("a")).state is DeliveryState.PENDING
    outbox.settle(second, DONE)
    told = only(outbox.of_job("a"))
    assert (told.state, len(told.log)) == (DeliveryState.DELIVERED, 1)


def test_racing_dispatchers_share_the_work(outbox: Outbox, engine: Engine) -> None:
    for number in range(40):
        put(engine, URL, str(number))
    taken: list[Delivery] = []

    def take() -> None:
        while got := outbox.take(3):
            taken.extend(got)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(delivery.job_id for delivery in taken) == sorted(str(number) for number in range(40))


def test_failures_are_tried_again_ever_later_and_given_up_after_a_day(outbox: Outbox, engine: Engine, clock: Clock) -> None:
    put(engine, URL)
    waits = [5, 15, 60, 300, 900, 3600, 10800, 21600, 43200]
    for number, wait in enumerate(waits, 1):
        delivery = only(outbox.take(10))
        assert delivery.attempts == number
        assert outbox.settle(delivery, FAILED) is DeliveryState.PENDING
        clock.advance(wait - 1)
        assert outbox.take(10) == []
        clock.advance(1.1)
    assert outbox.settle(only(outbox.take(10)), FAILED) is DeliveryState.FAILED
    clock.advance(10**6)
    assert outbox.take(10) == []
    delivery = only(outbox.of_job("a"))
    assert [(attempt.status, attempt.error) for attempt in delivery.log] == [(500, "the answer was 500")] * 10


def test_the_log_is_kept_for_a_month(outbox: Outbox, engine: Engine, clock: Clock) -> None:
    put(engine, URL)
    put(engine, URL, "pending")
    done = next(delivery for delivery in outbox.take(10) if delivery.job_id == "a")
    outbox.settle(done, DONE)
    clock.advance(29 * 86400)
    outbox.forget_old()
    assert len(outbox.of_job("a")) == 1
    clock.advance(2 * 86400)
    outbox.forget_old()
    assert outbox.of_job("a") == []
    assert len(outbox.of_job("pending")) == 1
