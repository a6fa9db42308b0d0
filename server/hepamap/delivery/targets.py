"""Which addresses this server may call: a client must not reach through it what the client itself cannot.

The name is resolved first, each address is checked, and the request goes to the address that was checked: a name that
resolves differently a moment later leads nowhere else.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from hepamap.delivery.errors import CallbackRefusedError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Sequence[str]]

_MAX_CHARS = 2000
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_PLAIN = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Target:
    """An address that may be called."""

    url: str
    host: str
    """As the client wrote it: for the Host header and the certificate."""
    address: str
    """What it resolved to, and was checked."""


def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, in the system's order.

    Raises:
        OSError: it has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class TargetPolicy:
    """What the operator allows: names of hosts (`lis.hospital.org`, `*.hospital.org`) and networks (`10.1.0.0/16`).

    A name is allowed where it resolves to public addresses; a private one only where its network is allowed too.
    """

    def __init__(self, allowed: Sequence[str], *, resolve: Resolve = resolve_by_system) -> None:
        self._networks: list[Network] = []
        self._names: list[str] = []
        for entry in allowed:
            try:
                self._networks.append(ipaddress.ip_network(entry))
            except ValueError:
                self._names.append(entry.lower().rstrip("."))
        self._resolve = resolve

    def target_of(self, url: str) -> Target:
        """Check an address. Asks the name server: to be called in a thread.

        Raises:
            CallbackRefusedError: it is no http or https address, has no allowed host, or cannot be resolved.
        """
        host, port = _host_and_port(url)
        if not self._names and not self._networks:
            raise CallbackRefusedError(
                "This server calls nobody back.",
                cure="Ask for the state instead, or have the operator set HEPAMAP_CALLBACK_ALLOW.",
            )
        try:
            addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in self._resolve(host, port)]
        except (OSError, ValueError) as error:
            raise CallbackRefusedError(f"The host {host!r} of the callback has no address.", cure="Check the address.") from error
        named = self._is_named(host)
        # All of them: a name that has an allowed address beside a forbidden one is up to something.
        if not addresses or not all(self._may_call(address, named) for address in addresses):
            raise CallbackRefusedError(
                f"This server may not call {host!r}.",
                cure="Ask the operator to allow the host, or its network where its address is private (HEPAMAP_CALLBACK_ALLOW).",
            )
        return Target(url, host, str(addresses[0]))

    def _is_named(self, host: str) -> bool:
        name = host.lower().rstrip(".")
        return any(name.endswith(entry[1:]) if entry.startswith("*.") else name == entry for entry in self._names)

    def _may_call(self, address: Address, named: bool) -> bool:
        inner = _embedded(address)
        if inner is not None:
            return self._may_call(inner, named)
        if any(address in network for network in self._networks if network.version == address.version):
            return True
        if not named or address.is_multicast or not address.is_global:
            return False
        # All other addresses of IPv6 are of some inside, such as fec0::/10; not each release of Python knows that.
        return address.version == 4 or address in _GLOBAL_UNICAST


def _embedded(address: Address) -> Address | None:
    """The IPv4 address that an IPv6 one stands for."""
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    if address in ipaddress.ip_network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)


def _host_and_port(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _no_address() from error
    if len(url) > _MAX_CHARS or not _PLAIN.fullmatch(url) or "\\" in url or parts.scheme not in ("http", "https") or not host:
        raise _no_address()
    if parts.username is not None or parts.password is not None or parts.fragment or port == 0:
        raise _no_address()
    return host, port or (443 if parts.scheme == "https" else 80)


def _no_address() -> CallbackRefusedError:
    return CallbackRefusedError(
        "The address of the callback cannot be used.",
        cure="Give an http or https address in ASCII, without user name, password and fragment.",
    )
