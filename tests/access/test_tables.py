from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine

from hepamap.access.tables import AuditRow
from hepamap.delivery.tables import DeliveryRow
from hepamap.jobs.tables import Base
from hepamap.operations.tallies import TallyRow
from hepamap.verdicts.tables import ChosenThresholdRow, VerdictRow


def test_migrations_make_the_tables_of_all_packages(engine: Engine) -> None:
    # Tables are described where they are used; naming one of each module makes sure that it is loaded.
    ours = set(Base.metadata.tables)
    named = (AuditRow, DeliveryRow, TallyRow, VerdictRow, ChosenThresholdRow)
    assert {row.__tablename__ for row in named} <= ours

    def is_not_of_a_library(_item: object, name: str | None, kind: str, *_: object) -> bool:
        return kind != "table" or not (name or "").startswith("procrastinate_")

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": is_not_of_a_library})
        assert compare_metadata(context, Base.metadata) == []
