"""Any sequence of calls, by any number of clients and of workers with old and new claims: only legal moves happen."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from hepamap.jobs.job import Computation, Job, JobFailure, JobProgress, JobResult
from hepamap.jobs.states import TRANSITIONS, JobState
from hepamap.jobs.store import JobStore
from tests.jobs.questions import add

ATTEMPTS_MAX = 2


class Jobs(RuleBasedStateMachine):
    claims = Bundle("claims")

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = JobStore.open(Path(self.folder.name) / "jobs.sqlite3")
        self.jobs: dict[str, Job] = {}
        self.works: dict[str, Computation] = {}
        self.valid: dict[str, str | None] = {}
        """The lease under which each computation may be changed."""

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    @rule(key=st.sampled_from("abc"), priority=st.integers(-1, 1))
    def add(self, key: str, priority: int) -> None:
        job = add(self.store, key=key, priority=priority)
        self.jobs[job.id] = job
        work = self.store.computation(job.computation_id)
        assert work is not None
        # Whoever asks has an answer, or a computation that nobody gave up.
        assert work.state in (JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED)
        assert not work.cancel_requested
        self.works.setdefault(work.id, work)
        self.valid.setdefault(work.id, None)

    @rule(target=claims)
    def claim(self) -> Computation | None:
        waiting = [work for work_id in self.works if (work := self.store.computation(work_id)) and work.state is JobState.QUEUED]
        work = self.store.claim()
        assert (work is None) == (not waiting)
        if work is not None:
            assert work.priority == max(other.priority for other in waiting)
            self.valid[work.id] = work.lease
        return work

    @rule(claim=claims, how=st.sampled_from(["succeed", "fail", "cancel", "hand_back", "beat"]))
    def settle(self, claim: Computation | None, how: str) -> None:
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
        if self.jobs:
            job_id = data.draw(st.sampled_from(sorted(self.jobs)))
            asked = self.store.request_cancel(job_id)
            assert asked is not None
            assert asked.finished

    @rule()
    def recover(self) -> None:
        for work in self.store.recover(attempts_max=ATTEMPTS_MAX):
            assert self.valid[work.id] is not None
            self.valid[work.id] = None

    @invariant()
    def computations_make_only_legal_moves(self) -> None:
        for before in list(getattr(self, "works", {}).values()):
            after = self.store.computation(before.id)
            assert after is not None
            assert after.state is before.state or after.state in TRANSITIONS[before.state]
            assert not before.finished or after == before
            assert (after.state is JobState.RUNNING) == (after.lease is not None)
            assert (after.finished_at is not None) == after.finished
            assert (after.result is not None) == (after.state is JobState.SUCCEEDED)
            assert (after.failure is not None) == (after.state is JobState.FAILED)
            assert 0 <= after.attempts <= ATTEMPTS_MAX
            self.works[before.id] = after

    @invariant()
    def jobs_follow_their_computation_until_they_are_cancelled(self) -> None:
        for before in list(getattr(self, "jobs", {}).values()):
            after = self.store.get(before.id)
            assert after is not None
            assert not before.finished or after == before
            assert after.state in (JobState.CANCELLED, self.works[after.computation_id].state)
            assert (after.finished_at is not None) == after.finished
            assert (after.result is not None) == (after.state is JobState.SUCCEEDED)
            self.jobs[before.id] = after

    @invariant()
    def what_runs_for_nobody_is_asked_to_stop(self) -> None:
        wanted = {job.computation_id for job in getattr(self, "jobs", {}).values() if job.state is not JobState.CANCELLED}
        for work in getattr(self, "works", {}).values():
            if not work.finished:
                assert work.cancel_requested == (work.id not in wanted)


TestJobs = Jobs.TestCase
TestJobs.settings = settings(max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
