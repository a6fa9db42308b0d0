"""Any sequence of calls, by any number of workers with old and new claims: only legal moves happen."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from hepamap.jobs.job import Job, JobFailure, JobProgress, JobResult
from hepamap.jobs.states import TRANSITIONS, JobState
from hepamap.jobs.store import JobStore

ATTEMPTS_MAX = 2


class Jobs(RuleBasedStateMachine):
    claims = Bundle("claims")

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = JobStore.open(Path(self.folder.name) / "jobs.sqlite3")
        self.known: dict[str, Job] = {}
        self.valid: dict[str, str | None] = {}
        """The lease under which each job may be changed."""

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    @rule(priority=st.integers(-1, 1))
    def add(self, priority: int) -> None:
        job = self.store.add(kind="k", payload={}, key="k", priority=priority)
        self.known[job.id] = job
        self.valid[job.id] = None

    @rule(target=claims)
    def claim(self) -> Job | None:
        waiting = [job for job in self.known.values() if job.state is JobState.QUEUED]
        job = self.store.claim()
        assert (job is None) == (not waiting)
        if job is not None:
            assert job.priority == max(other.priority for other in waiting)
            self.valid[job.id] = job.lease
        return job

    @rule(claim=claims, how=st.sampled_from(["succeed", "fail", "cancel", "hand_back", "beat"]))
    def settle(self, claim: Job | None, how: str) -> None:
        if claim is None:
            return
        done = {
            "succeed": lambda: self.store.succeed(claim, JobResult("ok", (), "x")),
            "fail": lambda: self.store.fail(claim, JobFailure("a", "b", "c")),
            "cancel": lambda: self.store.cancel(claim),
            "hand_back": lambda: self.store.hand_back(claim),
            "beat": lambda: self.store.beat(claim, JobProgress(1, 2, "s")).owned,
        }[how]()
        assert done == (self.valid[claim.id] == claim.lease)
        if done and how != "beat":
            self.valid[claim.id] = None

    @rule(data=st.data())
    def request_cancel(self, data: st.DataObject) -> None:
        if self.known:
            job_id = data.draw(st.sampled_from(sorted(self.known)))
            assert self.store.request_cancel(job_id) is not None

    @rule()
    def recover(self) -> None:
        for job in self.store.recover(attempts_max=ATTEMPTS_MAX):
            assert self.valid[job.id] is not None
            self.valid[job.id] = None

    @invariant()
    def only_legal_moves_happened(self) -> None:
        for before in list(getattr(self, "known", {}).values()):
            after = self.store.get(before.id)
            assert after is not None
            assert after.state is before.state or after.state in TRANSITIONS[before.state]
            assert not before.finished or after == before
            assert (after.state is JobState.RUNNING) == (after.lease is not None)
            assert (after.finished_at is not None) == after.finished
            assert (after.result is not None) == (after.state is JobState.SUCCEEDED)
            assert (after.failure is not None) == (after.state is JobState.FAILED)
            assert 0 <= after.attempts <= ATTEMPTS_MAX
            self.known[before.id] = after


TestJobs = Jobs.TestCase
TestJobs.settings = settings(max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
