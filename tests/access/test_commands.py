"""`hepamap keys` as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hepamap.access.audit import AuditTrail
from hepamap.access.errors import KeyInvalidError, KeyNotFoundError
from hepamap.cli import app
from hepamap.cli.keys import opened
from hepamap.jobs.errors import JobStoreMissingError
from tests.postgres import Postgres


def run(folder: Path, *arguments: str) -> Result:
    result = CliRunner().invoke(app, [*arguments, "--data-dir", str(folder)], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def keys(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(run(folder, "keys", "list", "--json").stdout)
    return found


def test_the_secret_alone_is_on_standard_output(tmp_path: Path) -> None:
    done = run(tmp_path, "keys", "create", "LIS", "--scope", "read", "--days", "0")
    assert done.stdout.startswith("hm_")
    assert len(done.stdout.splitlines()) == 1
    assert "valid, no end" in done.stderr
    (key,) = keys(tmp_path)
    assert (key["name"], key["scopes"], key["expires_at"]) == ("LIS", ["read"], None)
    assert done.stdout.strip() not in run(tmp_path, "keys", "list").stdout


def test_rotating_and_revoking(tmp_path: Path) -> None:
    old = json.loads(run(tmp_path, "keys", "create", "LIS", "--json").stdout)
    new = json.loads(run(tmp_path, "keys", "rotate", old["id"], "--grace-hours", "0", "--json").stdout)
    assert new["secret"] != old["secret"]
    assert "revoked" in run(tmp_path, "keys", "revoke", new["id"]).stdout
    listed = run(tmp_path, "keys", "list").stdout.splitlines()
    assert ["expired" in listed[0], "revoked" in listed[1]] == [True, True]
    exported = [json.loads(line) for line in run(tmp_path, "audit", "export").stdout.splitlines()]
    assert [(entry["action"], entry["object"]) for entry in exported] == [
        ("keys.create", old["id"]),
        ("keys.rotate", old["id"]),
        ("keys.create", new["id"]),
        ("keys.revoke", new["id"]),
        ("audit.export", None),
    ]
    assert all(entry["actor"].startswith("cli:") for entry in exported)


def test_what_is_typed_wrongly(tmp_path: Path) -> None:
    with pytest.raises(KeyInvalidError, match="'write'"):
        run(tmp_path, "keys", "create", "LIS", "--scope", "write")
    run(tmp_path, "keys", "create", "LIS")
    with pytest.raises(KeyNotFoundError):
        run(tmp_path, "keys", "revoke", "nobody")
    assert run(tmp_path, "audit", "verify", "--head", "17").exit_code == 2
    assert [key["name"] for key in keys(tmp_path)] == ["LIS"]


def test_no_key_is_valid_for_longer_than_dates_go(tmp_path: Path) -> None:
    for days in ("36501", "4000000", "9999999999999"):
        with pytest.raises(KeyInvalidError, match="days"):
            run(tmp_path, "keys", "create", "LIS", "--days", days)
    old = json.loads(run(tmp_path, "keys", "create", "LIS", "--days", "36500", "--json").stdout)
    with pytest.raises(KeyInvalidError, match="days"):
        run(tmp_path, "keys", "rotate", old["id"], "--grace-hours", "1e12")


@pytest.mark.parametrize(
    "command",
    [
        ("audit", "verify"),
        ("audit", "export"),
        ("keys", "list"),
        ("keys", "revoke", "x"),
        ("keys", "rotate", "x"),
        ("verdicts", "export", "folder"),
    ],
)
def test_what_reads_says_that_there_is_no_database_and_makes_none(tmp_path: Path, command: tuple[str, ...]) -> None:
    wrong = tmp_path / "wrong"
    with pytest.raises(JobStoreMissingError, match="no job database"):
        run(wrong, *command)
    assert not wrong.exists()
    wrong.mkdir()
    (wrong / "jobs.sqlite3").touch()
    with pytest.raises(JobStoreMissingError):
        run(wrong, *command)


def test_an_empty_database_of_postgresql_is_none_either(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEPAMAP_DATABASE_URL", postgres.new_database())
    with pytest.raises(JobStoreMissingError), opened(None):
        pass
    with opened(None, make=True):
        pass
    with opened(None) as engine:
        assert AuditTrail(engine).verify().seq == 0
