"""What can be wrong with a callback."""

from __future__ import annotations

from hepamap.errors import HepamapError


class CallbackError(HepamapError):
    """The callback of a request cannot be used."""

    code = "callback_error"


class CallbackRefusedError(CallbackError):
    """The address is none that this server may call."""

    code = "callback_not_allowed"


class CallbackSecretError(CallbackError):
    """There is no usable secret of that name to sign with."""

    code = "callback_secret_unknown"
