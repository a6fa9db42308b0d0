from __future__ import annotations

import hashlib
from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from hepamap.delivery.errors import CallbackRefusedError, CallbackSecretError
from hepamap.delivery.signature import Secrets, signature_of
from hepamap.delivery.targets import TargetPolicy
from tests.delivery.conftest import SECRET

ADDRESSES = {
    "lis.example.org": ["93.184.216.34"],
    "a.example.org": ["93.184.216.34"],
    "example.org": ["93.184.216.34"],
    "evilexample.org": ["93.184.216.34"],
    "intranet.example.org": ["10.1.2.3"],
    "two.example.org": ["93.184.216.34", "10.1.2.3"],
    "loopback.example.org": ["127.0.0.1"],
    "metadata.example.org": ["169.254.169.254"],
    "mapped.example.org": ["::ffff:127.0.0.1"],
    "nat64.example.org": ["64:ff9b::7f00:1"],
    "6to4.example.org": ["2002:7f00:1::"],
    "local6.example.org": ["fd00::1"],
    "link6.example.org": ["fe80::1%eth0"],
    "zero.example.org": ["0.0.0.0"],
    "multicast.example.org": ["224.0.0.1"],
    "site6.example.org": ["fec0::1"],
    "compatible.example.org": ["::7f00:1"],
    "own-nat64.example.org": ["64:ff9b:1::7f00:1"],
    "mapped-inside.example.org": ["::ffff:10.1.2.3"],
    "discard6.example.org": ["100::1"],
    "public6.example.org": ["2606:2800:220:1::1"],
    "other.net": ["93.184.216.35"],
}


def resolve(host: str, port: int) -> Sequence[str]:
    if host in ADDRESSES:
        return ADDRESSES[host]
    if host.replace(".", "").isdigit() or ":" in host:
        return [host]
    raise OSError("no such name")


def allows(url: str, *allowed: str) -> bool:
    try:
        target = TargetPolicy(allowed, resolve=resolve).target_of(url)
    except CallbackRefusedError:
        return False
    found = [ip_address(text.partition("%")[0]) for text in ADDRESSES.get(target.host, [target.host])]
    assert ip_address(target.address) in found
    return True


@pytest.mark.parametrize("host", ["lis.example.org", "LIS.example.org", "public6.example.org", "a.example.org"])
def test_named_hosts_with_public_addresses_may_be_called(host: str) -> None:
    assert allows(f"https://{host.lower()}/hook", "*.example.org")


@pytest.mark.parametrize(
    "host",
    [
        "intranet.example.org",
        "two.example.org",
        "loopback.example.org",
        "metadata.example.org",
        "mapped.example.org",
        "nat64.example.org",
        "6to4.example.org",
        "local6.example.org",
        "link6.example.org",
        "zero.example.org",
        "multicast.example.org",
        "site6.example.org",
        "compatible.example.org",
        "own-nat64.example.org",
        "mapped-inside.example.org",
        "discard6.example.org",
    ],
)
def test_a_name_does_not_open_the_inside(host: str) -> None:
    assert not allows(f"https://{host}/", "*.example.org")


@pytest.mark.parametrize(
    ("url", "allowed", "expected"),
    [
        ("https://intranet.example.org/", ("10.1.0.0/16",), True),
        ("https://two.example.org/", ("10.1.0.0/16",), False),
        ("https://two.example.org/", ("10.1.0.0/16", "two.example.org"), True),
        ("https://mapped.example.org/", ("127.0.0.0/8",), True),
        ("https://local6.example.org/", ("fd00::/8",), True),
        ("https://site6.example.org/", ("fec0::/10",), True),
        ("http://10.1.2.3:8080/hook", ("10.1.0.0/16",), True),
        ("http://10.2.2.3/", ("10.1.0.0/16",), False),
        ("http://[::1]/", ("10.1.0.0/16",), False),
        ("https://lis.example.org/", ("10.1.0.0/16",), False),
        ("https://lis.example.org/", (), False),
        ("https://lis.example.org./", ("lis.example.org",), False),
        ("https://other.net/", ("*.example.org",), False),
        ("https://example.org/", ("*.example.org",), False),
        ("https://evilexample.org/", ("*.example.org", "example.org"), False),
        ("https://unknown.example.org/", ("*.example.org",), False),
    ],
)
def test_what_is_allowed_is_what_the_operator_named(url: str, allowed: tuple[str, ...], expected: bool) -> None:
    assert allows(url, *allowed) is expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "lis.example.org",
        "ftp://lis.example.org/",
        "file:///etc/passwd",
        "gopher://lis.example.org/",
        "https:///hook",
        "https://user:secret@lis.example.org/",
        "https://lis.example.org@other.net/",
        "https://lis.example.org/#part",
        "https://lis.example.org:0/",
        "https://lis.example.org:99999/",
        "https://lis.example.org/a b",
        "https://lis.example.org/a\r\nHost: other.net",
        "https://lis.example.org\\@other.net/",
        "https://[::1/",
        "https://lïs.example.org/",
        "https://lis.example.org/" + "x" * 2000,
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    assert not allows(url, "lis.example.org", "other.net")


def test_a_signature_covers_the_time_and_the_body() -> None:
    # HMAC as RFC 2104 defines it, by hand.
    key = SECRET.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + b'1700000000.{"a": 1}').digest()
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).hexdigest()
    assert signature_of(SECRET, 1700000000, b'{"a": 1}') == f"v1={outer}"


def test_secrets_are_files(secrets: Secrets) -> None:
    assert secrets.get("default") == SECRET
    (secrets.folder / "default").write_bytes(b"the new one, after it was rotated by the operator")
    assert secrets.get("default").startswith(b"the new one")
    for name in ("missing", "short", "../secrets/default", "", "a" * 65, "default\0"):
        with pytest.raises(CallbackSecretError):
            secrets.get(name)


@pytest.mark.parametrize(
    ("file", "secret"),
    [(b"s" * 32 + b"\r\n", b"s" * 32), (b" " * 32, b" " * 32), (b"\n" + b"s" * 31 + b"\t", b"\n" + b"s" * 31 + b"\t")],
)
def test_a_secret_is_its_file_but_for_a_last_line_break(secrets: Secrets, file: bytes, secret: bytes) -> None:
    (secrets.folder / "own").write_bytes(file)
    assert secrets.get("own") == secret
