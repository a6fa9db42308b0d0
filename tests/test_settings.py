"""The database's password from a file, as secrets of containers come."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import make_url

from hepamap.errors import PasswordUnreadableError
from hepamap.settings import Settings

URL = "postgresql://hepamap@db:5433/jobs?sslmode=require"


def settings(url: str, file: Path | str) -> Settings:
    return Settings(database_url=url, database_password_file=str(file))


@pytest.mark.parametrize("password", ["plain", "with @:/?#[] %41 & ü"])
@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_the_password_of_the_file_is_in_the_url(tmp_path: Path, password: str, ending: str) -> None:
    file = tmp_path / "password"
    file.write_bytes((password + ending).encode())
    url = make_url(str(settings(URL, file).database))
    assert (url.password, url.username, url.host, url.port, url.database) == (password, "hepamap", "db", 5433, "jobs")
    assert url.query == {"sslmode": "require"}


def test_it_replaces_the_one_of_the_url(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("new")
    assert settings("postgresql://hepamap:old@db/jobs", file).database == "postgresql://hepamap:new@db/jobs"


def test_without_a_file_the_url_stays_as_it_is() -> None:
    assert settings("postgresql://hepamap:old@db/jobs", "").database == "postgresql://hepamap:old@db/jobs"


def test_sqlite_needs_no_password(tmp_path: Path) -> None:
    found = Settings(data_dir=tmp_path, database_password_file=str(tmp_path / "none"))
    assert found.database == tmp_path / "jobs.sqlite3"


def test_the_password_is_not_passed_on_to_workers(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hidden")
    assert "hidden" not in str(settings(URL, file).environment())


def test_a_file_that_is_not_there_is_named_with_its_cure(tmp_path: Path) -> None:
    with pytest.raises(PasswordUnreadableError, match="password-of-nobody") as caught:
        _ = settings(URL, tmp_path / "password-of-nobody").database
    assert "HEPAMAP_DATABASE_PASSWORD_FILE" in str(caught.value.cure)


def test_nothing_is_kept_for_longer_than_dates_go_back() -> None:
    assert Settings(keep_results_days=36500, keep_uploads_days=36500).keep_results_days == 36500
    for name in ("keep_results_days", "keep_uploads_days"):
        with pytest.raises(ValidationError, match=name):
            Settings.model_validate({name: 1_000_000})
