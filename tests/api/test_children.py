"""What crashes, hangs or never ends costs a child process, and nothing else."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fastapi.testclient import TestClient

from hepamap.api.children import Children, outline_children, slide_children
from hepamap.api.errors import ServerBusyError
from hepamap.errors import HepamapError, RegionTooComplexError, SlideDamagedError, SlideNotFoundError
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


def look_at(file: Path) -> None:
    file.stat()


@pytest.fixture
def readers() -> Iterator[Children]:
    readers = slide_children(30.0, 2)
    yield readers
    readers.close()


def test_a_child_is_another_process_and_is_used_again(readers: Children) -> None:
    first, second = readers.run(pid), readers.run(pid)
    assert first == second != os.getpid()


def test_a_crash_is_an_error_of_the_slide_and_the_next_question_is_answered(readers: Children) -> None:
    before = readers.run(pid)
    with pytest.raises(SlideDamagedError, match="crashed"):
        readers.run(crash)
    assert readers.run(pid) not in (before, os.getpid())


def test_a_slide_that_hangs_is_given_up() -> None:
    readers = slide_children(3.0)
    before = readers.run(pid)
    started = time.monotonic()
    with pytest.raises(SlideDamagedError, match=r"within 3 s"):
        readers.run(hang)
    assert time.monotonic() - started < 15
    assert not psutil.pid_exists(before)
    readers.close()


def test_a_child_that_was_killed_between_two_questions_is_replaced(readers: Children) -> None:
    before = readers.run(pid)
    os.kill(before, signal.SIGKILL)
    psutil.Process(before).wait(5)
    assert readers.run(pid) != before


def test_what_is_foreseen_comes_as_it_is_and_the_rest_is_no_problem_of_the_slide(readers: Children) -> None:
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


def test_what_a_child_did_not_foresee_names_no_file(readers: Children) -> None:
    with pytest.raises(RuntimeError, match="FileNotFoundError: No such file or directory") as crashed:
        readers.run(look_at, Path("/slides/DOE-JANE.svs"))
    assert "DOE" not in str(crashed.value)


def test_only_so_many_work_at_once(readers: Children) -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(readers.run(pid))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12
    assert len(set(found)) <= 2


def test_who_finds_all_children_busy_is_told_so() -> None:
    readers = slide_children(30.0, 1, wait_s=0.5)
    holder = threading.Thread(target=lambda: readers.run(time.sleep, 3.0))
    holder.start()
    time.sleep(0.5)
    with pytest.raises(ServerBusyError, match=r"busy.* for 0\.5 s"):
        readers.run(pid)
    holder.join()
    assert readers.run(pid) != os.getpid()
    readers.close()


def test_a_child_that_no_kill_ends_is_left_alone() -> None:
    # Who starts children also hears of their end: stopped, it tells nobody, as a child in a dead share's system call never ends.
    readers = slide_children(6.0, 1)
    parent = psutil.Process(readers.run(pid)).parent()
    assert parent is not None
    found: list[HepamapError] = []

    def ask() -> None:
        try:
            readers.run(hang)
        except HepamapError as error:
            found.append(error)

    parent.suspend()
    try:
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(60)
        assert [error.code for error in found] == ["slide_damaged"]
        assert not multiprocessing.active_children()  # the end of the server does not wait for it
    finally:
        parent.resume()
    assert readers.run(pid) != os.getpid()
    readers.close()


def test_the_paths_of_slides_are_resolved_in_a_child(client: TestClient, slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(path: Path, strict: bool = False) -> Path:
        raise AssertionError("the server itself follows links")

    client.get("/health/live")
    monkeypatch.setattr(Path, "resolve", never)
    assert post(client, slide)["state"] == "queued"
    assert client.post("/api/v1/slides/resolve", json={"path": str(slide)}).json()["visible"] is True
    outside = client.post("/api/v1/slides/resolve", json={"path": "/etc/passwd"}).json()
    assert outside["reason"]["code"] == "outside_roots"


def test_an_outline_that_never_ends_is_the_outlines_fault() -> None:
    children = outline_children(1.0)
    with pytest.raises(RegionTooComplexError):
        children.run(hang)
    children.close()


def test_children_go_with_their_readers(readers: Children) -> None:
    child = readers.run(pid)
    readers.close()
    assert not psutil.pid_exists(child)


def test_a_server_whose_child_is_killed_again_and_again_answers_on(client: TestClient, slide: Path) -> None:
    readers = services_of(client).readers
    for threshold in (0.3, 0.4, 0.5):
        assert post(client, slide, threshold=threshold)["state"] == "queued"
        os.kill(readers.run(pid), signal.SIGKILL)
