"""The threshold that a person chose for an analysis: contours come at it unless another one is asked for."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select

from hepamap.jobs.sessions import Sessions
from hepamap.verdicts.tables import ChosenThresholdRow
from hepamap.verdicts.verdict import ChosenThreshold


class ThresholdStore(Sessions):
    """The table; may be used by many threads and processes."""

    def choose(self, job_id: str, threshold: float, *, user: str, actor: str) -> ChosenThreshold | None:
        """Store a threshold in place of the one before; None where the analysis is gone."""
        at = self._clock()
        row = {"job_id": job_id, "threshold": threshold, "user": user, "actor": actor, "at": at}
        # Somebody else's may be the first once, in the same moment; each time: there is no such analysis any more.
        stored = self.written(lambda session: session.merge(ChosenThresholdRow(**row)))
        return None if stored is None else ChosenThreshold(threshold, user, at)

    def of(self, job_ids: Iterable[str]) -> dict[str, ChosenThreshold]:
        """The chosen thresholds of some analyses, by their ids; none where nobody chose."""
        query = select(ChosenThresholdRow).where(ChosenThresholdRow.job_id.in_(list(job_ids)))
        with self.reading() as session:
            return {row.job_id: ChosenThreshold(row.threshold, row.user, row.at) for row in session.scalars(query)}
