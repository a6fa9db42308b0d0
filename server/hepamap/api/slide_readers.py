"""Looks at slides in child processes: a file that makes the native library crash or hang costs a child, and not the server."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

import structlog

from hepamap.errors import HepamapError, SlideDamagedError

_log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

_CHILDREN = 4
_END_S = 2.0


class SlideReaders:
    """Runs functions in a few children, each one at a time; may be used by many threads.

    Children are started when they are needed and kept. One that dies takes nothing along but the question that killed it.
    """

    def __init__(self, *, timeout_s: float, children: int = _CHILDREN) -> None:
        self._timeout_s = timeout_s
        self._free = threading.Semaphore(children)
        self._lock = threading.Lock()
        self._idle: list[_Child] = []

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function of a module on values that can be pickled, in a child.

        Raises:
            HepamapError: as the function does.
            SlideDamagedError: the child died of it, or has not answered in time.
        """
        with self._free:
            found = self._ask(self._used_one(), function, arguments)
            if isinstance(found, _Death):
                # It may have been dead before, by the system's lack of memory or an operator's hand: a new one tells.
                found = self._ask(None, function, arguments)
        if isinstance(found, _Death):
            raise SlideDamagedError(
                "The library that reads slides crashed on this one.", cure="Copy it again from the scanner, and check it there."
            )
        if isinstance(found, _Crash):
            raise RuntimeError(f"in a child process:\n{found.text}")
        if isinstance(found, HepamapError):
            raise found
        answer: T = found
        return answer

    def close(self) -> None:
        """End all children that do nothing."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.end()

    def _ask(self, child: _Child | None, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        child = child or _Child()
        try:
            found = child.ask(function, arguments, self._timeout_s)
        except BaseException:
            child.kill()
            raise
        if isinstance(found, _Death):
            child.kill()
            return found
        with self._lock:
            self._idle.append(child)
        return found

    def _used_one(self) -> _Child | None:
        with self._lock:
            return self._idle.pop() if self._idle else None


class _Death:
    """What a child that is gone answers."""


class _Crash:
    """What a function raised that nobody foresaw."""

    def __init__(self, text: str) -> None:
        self.text = text


class _Child:
    def __init__(self) -> None:
        context = _context()
        self._line, far_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(far_end,), name="slide-reader", daemon=True)  # type: ignore[attr-defined]
        self._process.start()
        far_end.close()

    def ask(self, function: Callable[..., Any], arguments: tuple[Any, ...], timeout_s: float) -> Any:
        try:
            self._line.send((function, arguments))
            if not self._line.poll(timeout_s):
                _log.error("slide_reader_hangs", seconds=timeout_s)
                raise SlideDamagedError(
                    f"The slide could not be opened within {timeout_s:g} s.",
                    cure="Copy it again from the scanner. If others fail too, the operator should look at the slides' storage.",
                )
            return self._line.recv()
        except (EOFError, OSError):
            self._process.join(_END_S)
            _log.error("slide_reader_died", status=self._process.exitcode)
            return _Death()

    def end(self) -> None:
        self._line.close()  # it sees the end of the line, and goes
        self._process.join(_END_S)
        self.kill()

    def kill(self) -> None:
        self._line.close()
        self._process.kill()
        self._process.join()
        self._process.close()


def _context() -> BaseContext:
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    # One small process that has the modules already and is forked: a child costs milliseconds. The server itself cannot be
    # forked, since it has threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hepamap.api.routes.slides", "hepamap.api.submission"])
    return context


def _serve(line: Connection) -> None:
    """The life of a child."""
    # Ctrl-C reaches the whole group; the server ends its children itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            function, arguments = line.recv()
        except EOFError:
            return
        try:
            found = function(*arguments)
        except HepamapError as error:
            found = error
        except Exception:
            found = _Crash(traceback.format_exc())
        try:
            line.send(found)
        except BrokenPipeError:
            return
