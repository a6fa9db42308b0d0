"""What a result says of the program that made it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from hepamap import provenance


def git(folder: Path, *arguments: str) -> str:
    """Run git as nobody in particular; the output, stripped."""
    person = ("-c", "user.name=Nobody", "-c", "user.email=nobody@example.org")
    done = subprocess.run(["git", "-C", str(folder), *person, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program's source in an environment within somebody's repository, which has a commit and does not track it."""
    source = tmp_path / ".venv" / "site-packages" / "hepamap" / "provenance.py"
    source.parent.mkdir(parents=True)
    shutil.copy(provenance.__file__, source)
    (tmp_path / "own.txt").write_text("x")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "own.txt")
    git(tmp_path, "commit", "-q", "-m", "Own work")
    monkeypatch.setattr(provenance, "__file__", str(source))
    monkeypatch.delenv("HEPAMAP_COMMIT", raising=False)
    return source


def test_the_commit_of_somebody_elses_repository_is_not_ours(installed: Path) -> None:
    assert provenance.commit.__wrapped__() == "unknown"


def test_the_commit_of_a_checkout_is_known_and_says_what_is_not_committed(installed: Path) -> None:
    git(installed.parent, "add", installed.name)
    git(installed.parent, "commit", "-q", "-m", "The program")
    short = git(installed.parent, "rev-parse", "HEAD")[:12]
    assert provenance.commit.__wrapped__() == short
    installed.write_text("# changed\n")
    assert provenance.commit.__wrapped__() == f"{short}-dirty"
