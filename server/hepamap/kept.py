"""The last results of something costly, kept for those who ask again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LastKept(Generic[Value]):
    """Keeps the values that were used last; safe to use from several threads, which wait for a value that one of them makes."""

    def __init__(self, most: int) -> None:
        """Keep `most` values."""
        self._most = most
        self._lock = threading.Lock()
        self._kept: dict[Hashable, Future[Value]] = {}  # the one that was used last is the last

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key; made where it is not kept. A failure is not kept, but all who wait for it get it."""
        with self._lock:
            found = self._kept.pop(key, None)
            value: Future[Value] = Future() if found is None else found
            self._kept[key] = value
            if len(self._kept) > self._most:
                del self._kept[next(iter(self._kept))]
        if found is None:
            self._make(key, value, make)
        return value.result()

    def _make(self, key: Hashable, value: Future[Value], make: Callable[[], Value]) -> None:
        try:
            value.set_result(make())
        except BaseException as error:
            with self._lock:
                if self._kept.get(key) is value:
                    del self._kept[key]
            value.set_exception(error)
