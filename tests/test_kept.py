import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from hepamap.kept import LastKept


def test_the_values_used_last_are_kept() -> None:
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        return name.upper()

    kept = LastKept[str](2)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert kept.get(name, lambda name=name: make(name)) == name.upper()  # type: ignore[misc]
    assert made == ["a", "b", "c", "b"]  # c pushed b out, for a had been used since


def test_threads_wait_for_the_one_that_makes_it() -> None:
    kept, made, go_on = LastKept[int](2), [], threading.Event()

    def make() -> int:
        made.append(1)
        assert go_on.wait(10)
        return 7

    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(kept.get, "key", make) for _ in range(4)]
        go_on.set()
        assert [answer.result(10) for answer in answers] == [7, 7, 7, 7]
    assert made == [1]


def test_a_failure_is_told_and_not_kept() -> None:
    kept = LastKept[int](2)

    def fail() -> int:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        kept.get("key", fail)
    assert kept.get("key", lambda: 3) == 3
