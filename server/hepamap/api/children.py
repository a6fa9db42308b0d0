"""Does in child processes what may crash, hang or never end: that costs a child, and not the server."""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

import structlog

from hepamap.api.errors import ServerBusyError
from hepamap.errors import HepamapError, RegionTooComplexError, SlideDamagedError
from hepamap.jobs.processes import traceback_of

_log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

_CHILDREN = 4
_END_S = 2.0
# Whoever waits for a child holds one of the server's threads, and those that ask for other things need them.
_WAIT_S = 20.0
_OUTLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class Blame:
    """What a question is told that its child did not outlive."""

    hung: Callable[[float], HepamapError]
    """Given the seconds after which the child was given up."""
    died: Callable[[], HepamapError]


class Children:
    """Runs functions in a few children, each one at a time; may be used by many threads.

    Children are started when they are needed and kept. One that dies takes nothing along but the question that killed it.
    """

    def __init__(self, blame: Blame, *, timeout_s: float, children: int = _CHILDREN, wait_s: float = _WAIT_S) -> None:
        self._blame = blame
        self._timeout_s = timeout_s
        self._wait_s = wait_s
        self._free = threading.Semaphore(children)
        self._lock = threading.Lock()
        self._idle: list[_Child] = []

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function of a module on values that can be pickled, in a child.

        Raises:
            HepamapError: as the function does; as the blame says, where the child died of it or has not answered in time.
            ServerBusyError: all children are busy, and stay so.
        """
        if not self._free.acquire(timeout=self._wait_s):
            _log.error("children_all_busy", seconds=self._wait_s)
            raise ServerBusyError(
                f"The server is busy with other questions of this kind, and was so for {self._wait_s:g} s.",
                cure="Try again in a moment. If it stays so, the operator should look at the slides' storage.",
            )
        try:
            found = self._ask(self._used_one(), function, arguments)
            if isinstance(found, _Death):
                # It may have been dead before, by the system's lack of memory or an operator's hand: a new one tells.
                found = self._ask(None, function, arguments)
        finally:
            self._free.release()
        if isinstance(found, _Death):
            raise self._blame.died()
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
        if isinstance(found, _Hang):
            child.kill()
            raise self._blame.hung(self._timeout_s)
        if isinstance(found, _Death):
            child.kill()
            return found
        with self._lock:
            self._idle.append(child)
        return found

    def _used_one(self) -> _Child | None:
        with self._lock:
            return self._idle.pop() if self._idle else None


def slide_children(timeout_s: float, children: int = _CHILDREN, *, wait_s: float = _WAIT_S) -> Children:
    """Children that look at slides, whose library and storage may crash or hang."""
    return Children(
        Blame(
            hung=lambda seconds: SlideDamagedError(
                f"The slide could not be opened within {seconds:g} s.",
                cure="Copy it again from the scanner. If others fail too, the operator should look at the slides' storage.",
            ),
            died=lambda: SlideDamagedError(
                "The library that reads slides crashed on this one.", cure="Copy it again from the scanner, and check it there."
            ),
        ),
        timeout_s=timeout_s,
        children=children,
        wait_s=wait_s,
    )


def outline_children(timeout_s: float = _OUTLINE_S) -> Children:
    """Children that compute with outlines, which takes any time for some; not those of slides: neither waits for the other."""

    def too_complex(*_: float) -> RegionTooComplexError:
        return RegionTooComplexError(
            "What was drawn is too complex to be computed with.", cure="Simplify the outlines, so that they cross less often."
        )

    return Children(Blame(hung=too_complex, died=too_complex), timeout_s=timeout_s)


class _Death:
    """What a child that is gone answers."""


class _Hang:
    """What a child answers that has not answered in time."""


class _Crash:
    """What a function raised that nobody foresaw."""

    def __init__(self, text: str) -> None:
        self.text = text


class _Child:
    def __init__(self) -> None:
        context = _context()
        self._line, far_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(far_end,), name="child", daemon=True)  # type: ignore[attr-defined]
        self._process.start()
        far_end.close()

    def ask(self, function: Callable[..., Any], arguments: tuple[Any, ...], timeout_s: float) -> Any:
        try:
            self._line.send((function, arguments))
            if not self._line.poll(timeout_s):
                _log.error("child_hangs", function=function.__name__, seconds=timeout_s)
                return _Hang()
            return self._line.recv()
        except (EOFError, OSError):
            self._process.join(_END_S)
            _log.error("child_died", function=function.__name__, status=self._process.exitcode)
            return _Death()

    def end(self) -> None:
        self._line.close()  # it sees the end of the line, and goes
        self._process.join(_END_S)
        self.kill()

    def kill(self) -> None:
        """End it by force. Who hangs in a call of the system, such as one to a share that is away, cannot be ended: let it be."""
        self._line.close()
        self._process.kill()
        self._process.join(_END_S)
        if self._process.exitcode is None:
            _log.error("child_abandoned", pid=self._process.pid)
            # Else the end of the server would wait for it.
            multiprocessing.process._children.discard(self._process)  # type: ignore[attr-defined]
        else:
            self._process.close()


def _context() -> BaseContext:
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    # One small process that has the modules already and is forked: a child costs milliseconds. The server itself cannot be
    # forked, since it has threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hepamap.api.routes.slides", "hepamap.api.submission", "hepamap.api.judgement"])
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
        except Exception as error:
            found = _Crash(traceback_of(error))
        try:
            line.send(found)
        except BrokenPipeError:
            return
