"""Ctrl-C and a polite kill, kept out of libraries that lose them or crash on them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

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

    def deliver() -> None:
        pending = dict.fromkeys(caught)
        caught.clear()
        for number in pending:
            _deliver(number, handlers[signal.Signals(number)])

    try:
        with ExitStack() as restoring:  # all of them, even if a signal arrives in between
            for number, handler in handlers.items():
                restoring.callback(signal.signal, number, handler)
                signal.signal(number, lambda received, _frame: caught.append(received))
            yield deliver
    finally:
        deliver()


def _deliver(number: int, handler: Any) -> None:
    """As if the signal came now; who listens at its arrival otherwise, such as asyncio, has heard it already."""
    if callable(handler):
        handler(number, None)
    elif handler == signal.SIG_DFL:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
