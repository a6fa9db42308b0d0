"""The values that describe a job, as they leave the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hepamap.jobs.states import FINISHED, JobState


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is within its stage."""

    done: int
    """Units done in this stage."""
    total: int | None
    """Units in this stage; None while nobody knows."""
    stage: str
    """What is being done, in a word."""


@dataclass(frozen=True, slots=True)
class JobFailure:
    """Why a job failed, in words that a client may see."""

    code: str
    message: str
    cure: str


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a job that succeeded came to."""

    outcome: str
    warnings: tuple[Mapping[str, Any], ...]
    location: str
    """Where the result lies; the meaning is the handler's."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job as it stood when it was read. All times are UTC."""

    id: str
    key: str
    """What the job computes; two jobs with one key have one answer."""
    kind: str
    payload: Mapping[str, Any]
    state: JobState
    priority: int
    """Higher comes first."""
    result: JobResult | None
    progress: JobProgress
    failure: JobFailure | None
    attempts: int
    """How often it was started, without the starts that were handed back in good order."""
    lease: str | None
    """Proof of a claim: who holds another one may not change the job any more."""
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    stage_started_at: datetime | None
    finished_at: datetime | None
    heartbeat_at: datetime | None

    @property
    def finished(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in FINISHED


@dataclass(frozen=True, slots=True)
class Beat:
    """What a worker learns when it reports on its job."""

    owned: bool
    """False: the job was given to another worker, or deleted; nothing that this one does counts any more."""
    cancel_requested: bool


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker process and its last sign of life (UTC)."""

    id: str
    host: str
    pid: int
    started_at: datetime
    heartbeat_at: datetime


@dataclass(frozen=True, slots=True)
class JobPage:
    """Some jobs, newest first, and whether older ones follow."""

    jobs: tuple[Job, ...]
    has_more: bool
