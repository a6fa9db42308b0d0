"""The stored result of an analysis, as routes need it."""

from __future__ import annotations

from hepamap import __version__
from hepamap.api.errors import AnalysisNotFinishedError
from hepamap.api.representations import etag_of
from hepamap.api.services import Services
from hepamap.api.views import failure_answer
from hepamap.geometry import Point
from hepamap.jobs.job import Job
from hepamap.jobs.states import JobState
from hepamap.results import Frame, StoredResult, open_result


def require_finished(job: Job, services: Services) -> None:
    """Check that an analysis has a result.

    Raises:
        AnalysisNotFinishedError: not yet, or never.
    """
    if job.result is None:
        raise _not_finished(job, services)


def result_of(job: Job, services: Services) -> StoredResult:
    """The result of an analysis.

    Raises:
        AnalysisNotFinishedError: there is none yet, or never will be.
        ResultDamagedError: its files cannot be read.
    """
    if job.result is None:
        raise _not_finished(job, services)
    # Read each time: that takes a millisecond, its contours take far longer, and a result on the disk is the one that counts.
    return open_result(services.settings.results_dir / job.result.location)


def etag_of_result(job: Job, *question: object) -> str:
    """A result never changes, so what was asked of which run tells all; another version may draw it in another way."""
    return etag_of(__version__, job.id, job.finished_at, *question)


def frame_named(name: str, result: StoredResult) -> Frame:
    """The frame that was asked for: `client` for the one of the run, `level0` or `bounds`."""
    if name == "client":
        return result.frame
    if name == "level0":
        return Frame("level0", Point(0.0, 0.0))
    left, top, *_ = result.summary["provenance"]["slide"]["bounds_l0"]
    return Frame("bounds", Point(left, top))


def _not_finished(job: Job, services: Services) -> AnalysisNotFinishedError:
    failure = failure_answer(job, services)
    if failure is not None:
        return AnalysisNotFinishedError(f"The analysis failed ({failure.code}): {failure.message}", cure=failure.cure)
    if job.state is JobState.CANCELLED:
        return AnalysisNotFinishedError("The analysis was cancelled and has no result.", cure="Ask for it again.")
    return AnalysisNotFinishedError(
        f"The analysis is {job.state.value} and has no result yet.", cure="Ask again when its state is succeeded."
    )
