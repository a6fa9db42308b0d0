"""Every row of docs/rest-bad-input.md is true, and every request that is known to be bad has its row."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from hepamap.api.errors import status_of
from hepamap.settings import Settings
from tests.api.bad_requests import CASES, Place
from tests.api.test_bad_input import check_problem
from tests.api.test_errors import ELSEWHERE, all_errors, import_everything

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "rest-bad-input.md"
ROW = re.compile(r"\| `(?P<name>[a-z-]+)` \| (?P<what>[^|]+) \| (?P<status>\d{3}) \| `(?P<code>[a-z_0-9]+)` \|")


def rows() -> list[tuple[str, int, str]]:
    found = [ROW.fullmatch(line) for line in DOCUMENT.read_text("utf-8").splitlines() if line.startswith("| `")]
    assert all(found), "a row is not made as the others"
    return [(row["name"], int(row["status"]), row["code"]) for row in found if row is not None]


def test_the_table_and_the_requests_are_about_the_same() -> None:
    names = [name for name, _, _ in rows()]
    assert len(names) == len(set(names))
    assert set(names) == set(CASES)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"callback_allow": ("127.0.0.0/8",)})


@pytest.mark.parametrize(("name", "status", "code"), rows(), ids=[name for name, _, _ in rows()])
def test_a_bad_request_is_answered_as_the_table_says(
    client: TestClient, root: Path, slide: Path, name: str, status: int, code: str
) -> None:
    response = CASES[name](Place(client, root, slide))
    problem = check_problem(response, status, code)
    assert str(root.parent / "data") not in json.dumps(problem)


def test_every_refusal_has_its_row_or_its_sentence() -> None:
    import_everything()
    texts = "".join((DOCUMENT.parent / name).read_text("utf-8") for name in ("rest-bad-input.md", "access.md"))
    kinds = {kind for kind in all_errors() if not kind.__module__.startswith(ELSEWHERE) and status_of(kind) < 500}
    # Those that have children are raised as one of them; the rest belongs to the command line or to a job that has begun.
    kinds = {kind for kind in kinds if not kind.__subclasses__()}
    unsaid = {kind.code for kind in kinds if f"`{kind.code}`" not in texts}
    of_commands = {"output_exists", "key_not_found", "key_invalid", "no_verdicts", "server_address_invalid"}
    assert unsaid == of_commands | {"client_sources_missing"}  # and an installation without the client's sources
