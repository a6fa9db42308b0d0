"""Whether the settings keep the server closed."""

from __future__ import annotations

import ipaddress

from hepamap.access.errors import UnprotectedError
from hepamap.settings import Settings


def require_protected(settings: Settings) -> None:
    """Refuse settings that would let anybody in.

    Raises:
        UnprotectedError: the server would listen on a network without asking for credentials, or its settings of the
            identity provider are incomplete.
    """
    if settings.access == "off" and not _is_loopback(settings.host):
        raise UnprotectedError(
            f"The server would listen on {settings.host}, where other machines reach it, and ask nobody who they are.",
            cure="Set HEPAMAP_ACCESS=keys and make keys with `hepamap keys create`; or listen on 127.0.0.1.",
        )
    provider = (settings.oidc_issuer, settings.oidc_audience, settings.oidc_jwks)
    if any(provider) and not (all(provider) and settings.access == "keys"):
        raise UnprotectedError(
            "Tokens of the identity provider cannot be checked.",
            cure="Set all of HEPAMAP_OIDC_ISSUER, HEPAMAP_OIDC_AUDIENCE and HEPAMAP_OIDC_JWKS, and HEPAMAP_ACCESS=keys; or none.",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
