"""One running job as those see it who look after it: the pulse, which tells the database, and the watchdog."""

from __future__ import annotations

import time
from collections.abc import Callable

from hepamap.jobs.job import Computation, JobProgress


class Watch:
    """What the handler has said of its job, and what it is to learn.

    Each field has one writer and is replaced whole, so no lock is needed.
    """

    def __init__(self, job: Computation, stopping: Callable[[], bool]) -> None:
        self.job = job
        self.progress = job.progress
        self.kept = False
        """Whether this start has stored something that the next one need not do again."""
        self.cancel_requested = False
        self.owned = True
        self.working = True
        """Whether the handler is at it; afterwards its end is stored."""
        self.heard_at = time.monotonic()
        """When it last gave a sign of getting on, `time.monotonic`."""
        self.told_at: float | None = None
        """When it was first seen that it must end; the watchdog's."""
        self._stopping = stopping

    @property
    def must_end(self) -> bool:
        """Whether nobody wants it from this worker any more."""
        return self._stopping() or self.cancel_requested or not self.owned

    def report(self, progress: JobProgress) -> None:
        """How far it is."""
        self.progress = progress
        self.hear()

    def ask(self) -> bool:
        """Whether it is to end; whoever asks is not stuck."""
        self.hear()
        return self.must_end

    def keep(self) -> None:
        """Something was stored that the next start need not do again."""
        self.kept = True
        self.hear()

    def come_back(self) -> None:
        """The handler has come back, with or without a result."""
        self.working = False
        self.hear()

    def hear(self) -> None:
        """A sign of getting on."""
        self.heard_at = time.monotonic()
