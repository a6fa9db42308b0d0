"""`hepamap keys create|list|revoke|rotate`: who may use a server that runs with HEPAMAP_ACCESS=keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hepamap.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from hepamap.access.keys import ApiKey, NewKey

keys_app = typer.Typer(help="API keys of the server. A secret is shown once and stored nowhere.", no_args_is_help=True)

DataDir = Annotated[Path | None, typer.Option(help="Folder for jobs, results and uploads; from HEPAMAP_DATA_DIR if not given.")]
Days = Annotated[int, typer.Option(min=0, help="Days until the key expires; 0: never.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
_DAYS_MAX = 36500
KeyId = Annotated[str, typer.Argument(help="Id of the key, as in `hepamap keys list`.")]


@keys_app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is, such as the name of the system that will use it.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may do: read, analyse, admin; may be given several times. Not given: read and analyse."),
    ] = None,
    days: Days = 365,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key, and show its secret once."""
    from hepamap.access.errors import KeyInvalidError
    from hepamap.access.keys import KeyStore
    from hepamap.access.scopes import Scope

    wanted = scope or [Scope.READ, Scope.ANALYSE]
    unknown = [text for text in wanted if text not in list(Scope)]
    if unknown:
        raise KeyInvalidError(f"There is no scope {unknown[0]!r}.", cure=f"Use one of {', '.join(Scope)}.")
    with opened(data_dir, make=True) as engine:
        made = KeyStore(engine).create(name, [Scope(text) for text in wanted], _lifetime(days))
        note(engine, "keys.create", made.key.id)
    _show_secret(made, as_json)


@keys_app.command("list")
def list_keys(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List all keys, the revoked and expired ones too."""
    from hepamap.access.keys import KeyStore

    with opened(data_dir) as engine:
        keys = KeyStore(engine).list()
    if as_json:
        typer.echo(json.dumps([_key_json(key) for key in keys], indent=2))
        return
    for key in keys:
        used = "never used" if key.last_used_at is None else f"used {key.last_used_at:%Y-%m-%d %H:%M}"
        typer.echo(f"{key.id}  {_state(key):<28} {','.join(sorted(key.scopes)):<18} {used:<22} {key.name}")
    if not keys:
        typer.echo("There is no key.")


@keys_app.command()
def revoke(key_id: KeyId, data_dir: DataDir = None) -> None:
    """End a key at once."""
    from hepamap.access.keys import KeyStore

    with opened(data_dir) as engine:
        key = KeyStore(engine).revoke(key_id)
        note(engine, "keys.revoke", key.id)
    typer.echo(f"The key {key.id} ({key.name}) is revoked.")


@keys_app.command()
def rotate(
    key_id: KeyId,
    grace_hours: Annotated[float, typer.Option(min=0, help="How long the old key is still valid, hours.")] = 24.0,
    days: Days = 365,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a new key in place of an old one, which expires after a while."""
    from hepamap.access.keys import KeyStore

    with opened(data_dir) as engine:
        made = KeyStore(engine).rotate(key_id, grace=_time(grace_hours / 24), lifetime=_lifetime(days))
        note(engine, "keys.rotate", key_id)
        note(engine, "keys.create", made.key.id)
    _show_secret(made, as_json)


@contextmanager
def opened(data_dir: Path | None, *, make: bool = False) -> Iterator[Engine]:
    """The database of the server with these settings.

    Args:
        data_dir: folder of the server's data; None: as the settings say.
        make: make the database where there is none yet.

    Raises:
        JobStoreMissingError: there is none.
    """
    from hepamap.jobs.database import open_database, open_existing
    from hepamap.operations.folders import make_folders

    settings = Settings() if data_dir is None else Settings(data_dir=data_dir)
    if make:
        make_folders(settings)
    engine = (open_database if make else open_existing)(settings.database)
    try:
        yield engine
    finally:
        engine.dispose()


def note(engine: Engine, action: str, subject: str | None = None) -> None:
    """Write into the audit trail what was done by command, and from which account."""
    from hepamap.access.audit import AuditEvent, AuditTrail

    AuditTrail(engine).append(AuditEvent(account(), action, 200, object=subject))


def account() -> str:
    """Who runs the command, as the audit trail names it."""
    import getpass

    try:
        return f"cli:{getpass.getuser()[:200]}"
    except (OSError, KeyError):
        return "cli:unknown"  # a container's user need not have a name


def _lifetime(days: int) -> timedelta | None:
    return _time(days) if days else None


def _time(days: float) -> timedelta:
    from hepamap.access.errors import KeyInvalidError

    if not days <= _DAYS_MAX:
        raise KeyInvalidError(
            f"No key is valid for {days:g} days.",
            cure=f"Give {_DAYS_MAX} days at most, or --days 0 for a key that never expires.",
        )
    return timedelta(days=days)


def _show_secret(made: NewKey, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({**_key_json(made.key), "secret": made.secret}, indent=2))
        return
    # The secret alone on standard output, so that it can be piped into a file or a password safe.
    typer.echo(f"Key {made.key.id} for {made.key.name}: {_state(made.key)}. Its secret, shown only now:", err=True)
    typer.echo(made.secret)


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%Y-%m-%d}"
    if key.expires_at is None:
        return "valid, no end"
    return f"{'valid until' if key.valid_at(datetime.now(UTC)) else 'expired'} {key.expires_at:%Y-%m-%d %H:%M}"


def _key_json(key: ApiKey) -> dict[str, object]:
    times = {"created_at": key.created_at, "expires_at": key.expires_at, "revoked_at": key.revoked_at}
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        **{name: None if time is None else time.isoformat() for name, time in times.items()},
        "last_used_at": None if key.last_used_at is None else key.last_used_at.isoformat(),
    }
