"""The verdicts in the job database: appended, never changed."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session, undefer

from hepamap.geometry import PixelSize
from hepamap.jobs.job import Idempotency
from hepamap.jobs.sessions import Sessions, marked, too_busy
from hepamap.results import frame_from_json, frame_json
from hepamap.verdicts.tables import VerdictRow
from hepamap.verdicts.verdict import Decision, ModelFacts, Opinion, SlideFacts, Verdict, VerdictPage


class VerdictStore(Sessions):
    """The table; may be used by many threads and processes."""

    def add(
        self,
        job_id: str,
        opinion: Opinion,
        slide: SlideFacts,
        model: ModelFacts,
        *,
        actor: str,
        idempotency: Idempotency | None = None,
    ) -> Verdict:
        """Append a verdict; one whose mark was here before is given back as it was stored then.

        Raises:
            IdempotencyKeyReusedError: the mark was here before, on another request.
        """

        def append(session: Session) -> Verdict:
            repeated = marked(session, VerdictRow, idempotency)
            if repeated is not None:
                return _verdict(repeated)
            row = _row(job_id, self._clock(), actor, opinion, slide, model, idempotency)
            session.add(row)
            session.flush()
            return _verdict(row)

        verdict = self.written(append)
        if verdict is None:
            raise too_busy()
        return verdict

    def find_repeated(self, idempotency: Idempotency) -> Verdict | None:
        """The verdict of a mark that was here before, None for a new one.

        Raises:
            IdempotencyKeyReusedError: it was here before, on another request.
        """
        with self.reading() as session:
            row = marked(session, VerdictRow, idempotency)
            return None if row is None else _verdict(row)

    def get(self, verdict_id: str) -> Verdict | None:
        """The verdict of an id, with its geometry."""
        with self.reading() as session:
            row = session.get(VerdictRow, verdict_id, options=[undefer(VerdictRow.geometry_l0)])
            return None if row is None else _verdict(row, with_geometry=True)

    def of_job(self, job_id: str) -> tuple[Verdict, ...]:
        """The verdicts on an analysis, oldest first, without their geometries; also where the analysis is gone."""
        query = select(VerdictRow).where(VerdictRow.job_id == job_id).order_by(VerdictRow.at, VerdictRow.id)
        with self.reading() as session:
            return tuple(_verdict(row) for row in session.scalars(query))

    def page(self, *, since: datetime | None = None, after: tuple[datetime, str] | None = None, limit: int = 100) -> VerdictPage:
        """Verdicts on all analyses, oldest first.

        Args:
            since: only those of this time or later.
            after: time and id of the last verdict of the page before.
            limit: at most so many.
        """
        query = select(VerdictRow).order_by(VerdictRow.at, VerdictRow.id).limit(limit + 1)
        if since is not None:
            query = query.where(VerdictRow.at >= since)
        if after is not None:
            query = query.where(tuple_(VerdictRow.at, VerdictRow.id) > tuple_(*after))
        with self.reading() as session:
            found = [_verdict(row) for row in session.scalars(query)]
        return VerdictPage(tuple(found[:limit]), has_more=len(found) > limit)


def _row(
    job_id: str,
    at: datetime,
    actor: str,
    opinion: Opinion,
    slide: SlideFacts,
    model: ModelFacts,
    idempotency: Idempotency | None,
) -> VerdictRow:
    return VerdictRow(
        id=str(uuid.uuid4()),
        job_id=job_id,
        at=at,
        actor=actor,
        decision=opinion.decision.value,
        reason=opinion.reason,
        user=opinion.user,
        threshold=opinion.threshold,
        min_area_um2=opinion.min_area_um2,
        iou=opinion.iou,
        area_mm2=opinion.area_mm2,
        geometry_l0=None if opinion.geometry_l0 is None else dict(opinion.geometry_l0),
        slide=_slide_json(slide),
        slide_fingerprint=slide.fingerprint,
        model=asdict(model),
        idempotency_key=None if idempotency is None else idempotency.key,
        request_hash=None if idempotency is None else idempotency.request_hash,
    )


def _verdict(row: VerdictRow, *, with_geometry: bool = False) -> Verdict:
    opinion = Opinion(
        decision=Decision(row.decision),
        reason=row.reason,
        user=row.user,
        threshold=row.threshold,
        min_area_um2=row.min_area_um2,
        geometry_l0=row.geometry_l0 if with_geometry else None,
        iou=row.iou,
        area_mm2=row.area_mm2,
    )
    return Verdict(row.id, row.job_id, row.at, row.actor, opinion, _slide(row.slide), ModelFacts(**row.model))


def _slide_json(slide: SlideFacts) -> dict[str, Any]:
    return {
        "fingerprint": slide.fingerprint,
        "path": slide.path,
        "pixel_size": asdict(slide.pixel_size),
        "frame": frame_json(slide.frame),
        "region_l0": None if slide.region_l0 is None else dict(slide.region_l0),
        "case": slide.case,
    }


def _slide(data: dict[str, Any]) -> SlideFacts:
    return SlideFacts(
        fingerprint=data["fingerprint"],
        path=data["path"],
        pixel_size=PixelSize(**data["pixel_size"]),
        frame=frame_from_json(data["frame"]),
        region_l0=data["region_l0"],
        case=data["case"],
    )
