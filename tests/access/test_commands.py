"""`hepamap keys` as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hepamap.access.errors import KeyInvalidError, KeyNotFoundError
from hepamap.cli import app


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
        ("keys.revoke", new["id"]),
        ("audit.export", None),
    ]
    assert all(entry["actor"].startswith("cli:") for entry in exported)


def test_what_is_typed_wrongly(tmp_path: Path) -> None:
    with pytest.raises(KeyInvalidError, match="'write'"):
        run(tmp_path, "keys", "create", "LIS", "--scope", "write")
    with pytest.raises(KeyNotFoundError):
        run(tmp_path, "keys", "revoke", "nobody")
    assert run(tmp_path, "audit", "verify", "--head", "17").exit_code == 2
    assert keys(tmp_path) == []
