"""What can be wrong with the client for QuPath."""

from __future__ import annotations

from hepamap.errors import HepamapError


class ClientScriptError(HepamapError):
    """The script cannot be put together."""

    code = "client_script_error"


class ClientSourcesMissingError(ClientScriptError):
    """This installation has no sources of the script."""

    code = "client_sources_missing"


class ClientSourcesInvalidError(ClientScriptError):
    """The sources do not make one script."""

    code = "client_sources_invalid"


class ServerAddressInvalidError(ClientScriptError):
    """What was given as the server's address is none."""

    code = "server_address_invalid"
