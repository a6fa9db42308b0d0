"""Slides that crash or hang the library that reads them cost a child process, and nothing else."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fastapi.testclient import TestClient

from hepamap.api.slide_readers import SlideReaders
from hepamap.errors import HepamapError, SlideDamagedError, SlideNotFoundError
from tests.api.conftest import post, services_of


def pid() -> int:
    return os.getpid()


def crash() -> None:
    ctypes.string_at(0)


def hang() -> None:
    time.sleep(60)


def refuse() -> None:
    raise SlideNotFoundError("It is not there.", cure="Look elsewhere.")


def stumble() -> None:
    raise ZeroDivisionError("inside")


@pytest.fixture
def readers() -> Iterator[SlideReaders]:
    readers = SlideReaders(timeout_s=30.0, children=2)
    yield readers
    readers.close()


def test_a_child_is_another_process_and_is_used_again(readers: SlideReaders) -> None:
    first, second = readers.run(pid), readers.run(pid)
    assert first == second != os.getpid()


def test_a_crash_is_an_error_of_the_slide_and_the_next_question_is_answered(readers: SlideReaders) -> None:
    before = readers.run(pid)
    with pytest.raises(SlideDamagedError, match="crashed"):
        readers.run(crash)
    assert readers.run(pid) not in (before, os.getpid())


def test_a_slide_that_hangs_is_given_up() -> None:
    readers = SlideReaders(timeout_s=3.0)
    before = readers.run(pid)
    started = time.monotonic()
    with pytest.raises(SlideDamagedError, match=r"within 3 s"):
        readers.run(hang)
    assert time.monotonic() - started < 15
    assert not psutil.pid_exists(before)
    readers.close()


def test_a_child_that_was_killed_between_two_questions_is_replaced(readers: SlideReaders) -> None:
    before = readers.run(pid)
    os.kill(before, signal.SIGKILL)
    psutil.Process(before).wait(5)
    assert readers.run(pid) != before


def test_what_is_foreseen_comes_as_it_is_and_the_rest_is_no_problem_of_the_slide(readers: SlideReaders) -> None:
    with pytest.raises(SlideNotFoundError) as found:
        readers.run(refuse)
    assert (found.value.message, found.value.cure, found.value.code) == (
        "It is not there.",
        "Look elsewhere.",
        "slide_not_found",
    )
    with pytest.raises(RuntimeError, match="ZeroDivisionError: inside") as crashed:
        readers.run(stumble)
    assert not isinstance(crashed.value, HepamapError)


def test_only_so_many_work_at_once(readers: SlideReaders) -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(readers.run(pid))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12
    assert len(set(found)) <= 2


def test_children_go_with_their_readers(readers: SlideReaders) -> None:
    child = readers.run(pid)
    readers.close()
    assert not psutil.pid_exists(child)


def test_a_server_whose_child_is_killed_again_and_again_answers_on(client: TestClient, slide: Path) -> None:
    readers = services_of(client).readers
    for threshold in (0.3, 0.4, 0.5):
        assert post(client, slide, threshold=threshold)["state"] == "queued"
        os.kill(readers.run(pid), signal.SIGKILL)
