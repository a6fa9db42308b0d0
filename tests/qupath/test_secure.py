"""https: certificates are checked, and an organisation's own authority can be added."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.qupath.conftest import Person, the_dialog
from tests.qupath.fake_server import FakeHepamap


@pytest.fixture
def own_certificate(tmp_path: Path) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=lab"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", "key.pem", "-out", "own.pem"], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path / "own.pem"


@pytest.fixture
def secure_server(own_certificate: Path) -> Iterator[FakeHepamap]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own_certificate, own_certificate.parent / "key.pem")
    server = FakeHepamap(context)
    yield server
    server.close()


def test_an_unknown_certificate_is_refused(person: Person, secure_server: FakeHepamap) -> None:
    person.settings["server"] = secure_server.url
    text = the_dialog(person.runs_it(item="Test connection"))["text"]
    assert text.startswith(f"✗ The secure connection to {secure_server.url} failed (")
    assert secure_server.asked == []


def test_the_authority_of_an_organisation(person: Person, secure_server: FakeHepamap, own_certificate: Path) -> None:
    person.settings |= {"server": secure_server.url, "ca_file": str(own_certificate)}
    dialog = the_dialog(person.runs_it(item="Test connection"))
    assert dialog["title"] == "hepamap: connection is good", dialog["text"]


def test_the_name_is_checked_too(person: Person, secure_server: FakeHepamap, own_certificate: Path) -> None:
    person.settings |= {"server": secure_server.url.replace("127.0.0.1", "localhost"), "ca_file": str(own_certificate)}
    assert "✗ The secure connection to https://localhost:" in the_dialog(person.runs_it(item="Test connection"))["text"]
