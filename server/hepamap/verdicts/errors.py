"""What can be wrong with a verdict."""

from __future__ import annotations

from hepamap.errors import HepamapError


class VerdictError(HepamapError):
    """A verdict cannot be taken or exported."""

    code = "verdict_error"


class VerdictNotFoundError(VerdictError):
    """There is no verdict of that id."""

    code = "verdict_not_found"


class NothingToAcceptError(VerdictError):
    """There are no contours, because the slide cannot be evaluated: to accept that would say that it has no tumour."""

    code = "nothing_to_accept"


class NoVerdictsError(VerdictError):
    """There is nothing to export."""

    code = "no_verdicts"
