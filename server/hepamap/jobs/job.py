"""The values that describe jobs and computations, as they leave the store."""

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
class Computation:
    """What a worker does, as it stood when it was read; one or several jobs wait for it. All times are UTC."""

    id: str
    key: str
    """What is computed; two computations with one key have one answer."""
    pieces: str
    """Name of the place for what helps the next start to go on; another computation has it only if it goes on from this one."""
    kind: str
    payload: Mapping[str, Any]
    """What the handler needs."""
    upload: str | None
    """Name of the upload that it reads; the upload is kept while it may be needed."""
    state: JobState
    priority: int
    """Higher comes first."""
    result: JobResult | None
    progress: JobProgress
    failure: JobFailure | None
    attempts: int
    """How often it was started, without the starts that were handed back in good order."""
    lease: str | None
    """Proof of a claim: who holds another one may not change the computation any more."""
    cancel_requested: bool
    """Nobody waits for it any more; its worker is to stop."""
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
class Job:
    """What a client asked for, as it stood when it was read: its own identity, and what came of its computation."""

    id: str
    computation_id: str
    key: str
    """What it asks for; jobs with one key share one computation, and cancelling one leaves the others alone."""
    payload: Mapping[str, Any]
    """The client's own part: the worker never sees it."""
    upload: str | None
    state: JobState
    priority: int
    result: JobResult | None
    progress: JobProgress
    failure: JobFailure | None
    created_at: datetime
    started_at: datetime | None
    stage_started_at: datetime | None
    finished_at: datetime | None
    """Never before `created_at`: a job that finds its answer there is finished at once."""

    @property
    def finished(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in FINISHED


@dataclass(frozen=True, slots=True)
class Question:
    """What a client asks for, before it is a job."""

    kind: str
    """Which handler does it."""
    key: str
    """What is computed, at most 64 characters."""
    work: Mapping[str, Any]
    """What the handler needs, as JSON."""
    payload: Mapping[str, Any]
    """The client's own part, as JSON."""
    priority: int = 0
    upload: str | None = None
    anew: bool = False
    """A new computation begins with nothing, and does not go on from one of its key that is being given up."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A client's mark on a request that it may send again."""

    key: str
    """The client's own name for it, at most 512 characters, with whatever keeps clients apart."""
    request_hash: str
    """What was asked: the same key with another hash is a mistake of the client's."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What became of a question."""

    job: Job
    repeated: bool
    """The same request was here before, and this is its job."""
    shared: bool
    """The job's computation was there before, and reads its own slide: an upload that came along is not needed."""


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What jobs that are gone leave on the disk."""

    jobs: tuple[str, ...] = ()
    """Ids of the jobs that are gone."""
    results: tuple[str, ...] = ()
    """Locations of results that nobody refers to any more."""
    uploads: tuple[str, ...] = ()
    """Names of uploads that no computation refers to any more."""


@dataclass(frozen=True, slots=True)
class Beat:
    """What a worker learns when it reports on its computation."""

    owned: bool
    """False: it was given to another worker; nothing that this one does counts any more."""
    cancel_requested: bool


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker process and its last sign of life (UTC)."""

    id: str
    host: str
    pid: int
    started_at: datetime
    heartbeat_at: datetime
    trouble: str | None = None
    """What keeps it from working; None: nothing that it knows of."""


@dataclass(frozen=True, slots=True)
class JobPage:
    """Some jobs, newest first, and whether older ones follow."""

    jobs: tuple[Job, ...]
    has_more: bool
