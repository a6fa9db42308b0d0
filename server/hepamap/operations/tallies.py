"""Running totals that all processes add to: how slides ended, and how long the stages took.

They are kept in the job database, since the worker that counts and the server that shows are different processes, often on
different machines, and none of them lives for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, Double, String, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from hepamap.jobs.job import Job
from hepamap.jobs.tables import Base

OUTCOMES = "outcomes"
"""Tally of finished analyses by outcome; the total is not used."""
STAGE_SECONDS = "stage_seconds"
"""Tally of stages by name: how often each was passed, and the seconds it took in all."""

_LABEL_MAX = 64


class TallyRow(Base):
    """A running total; see `Tally`."""

    __tablename__ = "tallies"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    label: Mapped[str] = mapped_column(String(64), primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)
    total: Mapped[float] = mapped_column(Double)


@dataclass(frozen=True, slots=True)
class Tally:
    """How often something was counted, and the sum of what was measured."""

    label: str
    count: int
    total: float


def add(session: Session, name: str, amounts: Iterable[tuple[str, float]]) -> None:
    """Count, within the caller's transaction.

    Args:
        session: an open transaction.
        name: which tally.
        amounts: label, and what was measured.
    """
    # In the order of the labels: two that count the same ones must not wait for each other.
    for label, amount in sorted((label[:_LABEL_MAX], amount) for label, amount in amounts):
        row = (TallyRow.name == name, TallyRow.label == label)
        more = update(TallyRow).where(*row).values(count=TallyRow.count + 1, total=TallyRow.total + amount)
        if session.execute(more.returning(TallyRow.name)).first() is not None:
            continue
        try:
            with session.begin_nested():
                session.execute(insert(TallyRow).values(name=name, label=label, count=1, total=amount))
        except IntegrityError:
            # Another process counted the first one in the same moment.
            session.execute(more)


def count_outcomes(session: Session, jobs: Sequence[Job]) -> None:
    """Count jobs that finish; for the job store, which calls it in the transaction that finishes them."""
    add(session, OUTCOMES, [(job.state.value if job.result is None else job.result.outcome, 0.0) for job in jobs])


def read(session: Session) -> Mapping[str, tuple[Tally, ...]]:
    """All tallies by name, each by label."""
    found: dict[str, tuple[Tally, ...]] = {}
    for row in session.scalars(select(TallyRow).order_by(TallyRow.name, TallyRow.label)):
        found[row.name] = (*found.get(row.name, ()), Tally(row.label, row.count, row.total))
    return found
