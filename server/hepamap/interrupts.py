"""Ctrl-C and a polite kill, kept out of libraries that lose them or crash on them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupts_deferred() -> Iterator[Callable[[], None]]:
    """Signals to stop wait for the end of the block, or for the next call of what it gives.

    Python raises a signal's exception between any two instructions. Within TensorFlow's import it was seen to be swallowed, and a
    command went on as if nobody had stopped it, and while a network answered to end in a segmentation fault. Threads other than
    the main one get no signals: nothing is changed for them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    caught: list[int] = []
    # None is a handler that was not set by Python, and cannot be set again.
    handlers = {number: handler for number in _INTERRUPTS if (handler := signal.getsignal(number)) is not None}

    def defer() -> None:
        for number in handlers:
            signal.signal(number, lambda received, _frame: caught.append(received))

    def deliver() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if caught:
            first = caught[0]
            caught.clear()
            signal.raise_signal(first)

    def check() -> None:
        if caught:
            deliver()
            defer()

    defer()
    try:
        yield check
    finally:
        deliver()
