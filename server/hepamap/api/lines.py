"""Lines to clients that have gone to sleep, or never meant well: what uvicorn itself would keep open for ever."""

from __future__ import annotations

import asyncio

import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol

_log = structlog.stdlib.get_logger(__name__)


class ImpatientProtocol(H11Protocol):
    """Closes a line whose request's head does not come to an end, and one whose client does not take its answer.

    Bodies that stop coming are `middleware.RequestFrame`'s, which can still answer.
    """

    silence_s: float

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._head: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes. Those of a head must all come in one time, however they are spread over it."""
        super().data_received(data)
        self._watch_head()

    def pause_writing(self) -> None:
        """The client does not take what it asked for as fast as it could be sent."""
        super().pause_writing()
        self._taking = self.loop.call_later(self.silence_s, self._give_up, "answer")

    def resume_writing(self) -> None:
        """It has taken some of it."""
        super().resume_writing()
        self._taking = _stopped(self._taking)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the line."""
        self._head, self._taking = _stopped(self._head), _stopped(self._taking)
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering:
            self._head = _stopped(self._head)
        elif self._head is None:
            self._head = self.loop.call_later(self.silence_s, self._give_up, "head")

    def _give_up(self, what: str) -> None:
        _log.info("line_given_up", waited_for=what, seconds=self.silence_s)
        self.transport.abort()


def protocol_of(silence_s: float) -> type[ImpatientProtocol]:
    """The protocol that waits so long, seconds."""
    return type("Protocol", (ImpatientProtocol,), {"silence_s": silence_s})


def _stopped(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """No timer, after the one that there was has been stopped."""
    if timer is not None:
        timer.cancel()
    return None
