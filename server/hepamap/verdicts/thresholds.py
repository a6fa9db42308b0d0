"""The threshold that a person chose for an analysis: contours come at it unless another one is asked for."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from hepamap.jobs.sessions import Sessions
from hepamap.verdicts.tables import ChosenThresholdRow
from hepamap.verdicts.verdict import ChosenThreshold

_TRIES = 3


class ThresholdStore(Sessions):
    """The table; may be used by many threads and processes."""

    def choose(self, job_id: str, threshold: float, *, user: str, actor: str) -> ChosenThreshold | None:
        """Store a threshold in place of the one before; None where the analysis is gone."""
        at = self._clock()
        for _ in range(_TRIES):
            try:
                with self.writing() as session:
                    session.merge(ChosenThresholdRow(job_id=job_id, threshold=threshold, user=user, actor=actor, at=at))
                return ChosenThreshold(threshold, user, at)
            except IntegrityError:
                # Somebody else's was the first, in the same moment; or there is no such analysis any more.
                continue
        return None

    def of(self, job_ids: Iterable[str]) -> dict[str, ChosenThreshold]:
        """The chosen thresholds of some analyses, by their ids; none where nobody chose."""
        query = select(ChosenThresholdRow).where(ChosenThresholdRow.job_id.in_(list(job_ids)))
        with self.reading() as session:
            return {row.job_id: ChosenThreshold(row.threshold, row.user, row.at) for row in session.scalars(query)}
