"""Where a signal to stop takes effect."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType

import pytest

from hepamap.interrupts import interrupts_deferred

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """As the command line has them: both raise."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@BOTH
def test_a_signal_waits_for_the_end_of_the_block(number: signal.Signals) -> None:
    done = []

    def command() -> None:
        with interrupts_deferred():
            signal.raise_signal(number)
            done.append("the rest of the block")
        done.append("what comes after it")

    with pytest.raises(KeyboardInterrupt):
        command()
    assert done == ["the rest of the block"]
    with pytest.raises(KeyboardInterrupt):  # and from there on as before
        signal.raise_signal(number)


@BOTH
def test_a_signal_is_not_lost_where_a_library_loses_exceptions(number: signal.Signals) -> None:
    def library() -> None:
        with suppress(BaseException):  # as in the import of optional packages
            signal.raise_signal(number)

    library()  # so it was: nobody ever hears of it
    with pytest.raises(KeyboardInterrupt), interrupts_deferred():
        library()


@BOTH
def test_a_signal_takes_effect_where_it_is_asked_for(number: signal.Signals) -> None:
    done = []

    def command() -> None:
        with interrupts_deferred() as stop_if_asked:
            stop_if_asked()
            done.append(1)
            signal.raise_signal(number)
            done.append(2)
            stop_if_asked()
            done.append(3)

    with pytest.raises(KeyboardInterrupt):
        command()
    assert done == [1, 2]


def test_a_handler_that_only_takes_note_is_told_once_and_again_for_the_next() -> None:
    """A worker's: the block goes on, and what comes later is deferred too."""
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
    with interrupts_deferred() as stop_if_asked:
        signal.raise_signal(signal.SIGTERM)
        assert heard == []
        stop_if_asked()
        stop_if_asked()
        assert heard == [signal.SIGTERM]
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    assert heard == [signal.SIGTERM] * 2


def test_one_block_within_another_leaves_it_to_the_outer_one() -> None:
    done = []

    def command() -> None:
        with interrupts_deferred():
            with interrupts_deferred():
                signal.raise_signal(signal.SIGINT)
                done.append("inner")
            done.append("outer")

    with pytest.raises(KeyboardInterrupt):
        command()
    assert done == ["inner", "outer"]


def test_each_kind_of_signal_is_told_once_and_handlers_are_as_before() -> None:
    heard: list[int] = []

    def take_note(number: int, _frame: FrameType | None) -> None:
        heard.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, take_note)
    with interrupts_deferred():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
    assert heard == [signal.SIGINT, signal.SIGTERM]
    assert {signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} == {take_note}


def test_where_nobody_handles_it_the_process_ends_after_the_block() -> None:
    program = """
import signal
from hepamap.interrupts import interrupts_deferred
with interrupts_deferred():
    signal.raise_signal(signal.SIGTERM)
    print("the rest", flush=True)
print("after it", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "the rest\n")


def test_an_event_loop_hears_a_signal_once() -> None:
    async def run() -> list[str]:
        heard: list[str] = []
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, heard.append, "stop")
        with interrupts_deferred():
            signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0.05)
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        return heard

    assert asyncio.run(run()) == ["stop"]


def test_an_error_and_a_signal_both_come_out() -> None:
    def command() -> None:
        with interrupts_deferred():
            signal.raise_signal(signal.SIGINT)
            raise ValueError("of the block")

    with pytest.raises(KeyboardInterrupt) as caught:
        command()
    assert isinstance(caught.value.__context__, ValueError)


def test_other_threads_change_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)
    within = []

    def run() -> None:
        with interrupts_deferred() as stop_if_asked:
            stop_if_asked()
            within.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert within == [before]
