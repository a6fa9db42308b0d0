"""The tables of verdicts and chosen thresholds, in the job database; `jobs.migrations` creates them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, Double, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from hepamap.jobs.tables import Base, Marked, UtcDateTime
from hepamap.verdicts.verdict import Decision


class VerdictRow(Marked, Base):
    """A verdict; see `verdict.Verdict`. No foreign key: a verdict is evidence, and outlives its analysis."""

    __tablename__ = "verdicts"
    __table_args__ = (
        CheckConstraint(f"decision IN ({', '.join(repr(decision.value) for decision in Decision)})", name="decision"),
        Index("ix_verdicts_at_id", "at", "id"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(36), index=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    actor: Mapped[str] = mapped_column(String(255))
    decision: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)
    user: Mapped[str] = mapped_column(String(200))
    threshold: Mapped[float] = mapped_column(Double)
    min_area_um2: Mapped[float] = mapped_column(Double)
    iou: Mapped[float | None] = mapped_column(Double)
    area_mm2: Mapped[float | None] = mapped_column(Double)
    # Up to megabytes: loaded only where somebody wants it.
    geometry_l0: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), deferred=True)
    slide: Mapped[dict[str, Any]] = mapped_column(JSON)
    slide_fingerprint: Mapped[str] = mapped_column(String(128), index=True)
    model: Mapped[dict[str, Any]] = mapped_column(JSON)


class ChosenThresholdRow(Base):
    """The threshold that a person chose for an analysis; goes with the analysis."""

    __tablename__ = "chosen_thresholds"

    job_id: Mapped[str] = mapped_column(String(36), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    threshold: Mapped[float] = mapped_column(Double)
    user: Mapped[str] = mapped_column(String(200))
    actor: Mapped[str] = mapped_column(String(255))
    at: Mapped[datetime] = mapped_column(UtcDateTime)
