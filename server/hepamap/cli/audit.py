"""`hepamap audit verify|export`: the trail of who did what."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated

import typer

from hepamap.cli.keys import DataDir, note, opened

if TYPE_CHECKING:
    from hepamap.access.audit import AuditHead

audit_app = typer.Typer(help="The audit trail: who did what, when, to what.", no_args_is_help=True)

_HEAD = re.compile(r"(\d{1,18}):([0-9a-f]{64})")


@audit_app.command()
def verify(
    head: Annotated[
        str | None, typer.Option(help="End of the trail as this command printed it earlier; it must still be part of the trail.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Walk the whole trail; status 1 and the number of the first entry that is not as it was written.

    Keep the printed end somewhere that the server cannot write to: without one, somebody who can write to the database can
    shorten the trail or rewrite all of it, and nobody will see.
    """
    from hepamap.access.audit import AuditTrail

    known = None if head is None else _parse(head)
    with opened(data_dir) as engine:
        end = AuditTrail(engine).verify(known)
    typer.echo(f"The audit trail is whole: {end.seq} entries. Its end:")
    typer.echo(str(end))


@audit_app.command()
def export(
    after: Annotated[int, typer.Option(min=0, help="Begin behind the entry of this number.")] = 0, data_dir: DataDir = None
) -> None:
    """Print the trail as JSON lines, oldest entry first; the export itself becomes an entry."""
    from hepamap.access.audit import AuditTrail

    with opened(data_dir) as engine:
        note(engine, "audit.export")
        for entry in AuditTrail(engine).entries(after=after):
            typer.echo(json.dumps(entry.to_json(), ensure_ascii=False))


def _parse(text: str) -> AuditHead:
    from hepamap.access.audit import AuditHead

    form = _HEAD.fullmatch(text.strip())
    if form is None:
        raise typer.BadParameter("an end is <number>:<64 hexadecimal digits>, as `hepamap audit verify` prints it")
    return AuditHead(int(form[1]), form[2])
