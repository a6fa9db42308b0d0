"""How access can be refused, and what its stores can fail at."""

from __future__ import annotations

from hepamap.errors import HepamapError


class AccessError(HepamapError):
    """The caller may not do this."""

    code = "access_denied"


class CredentialsError(AccessError):
    """The caller is not known."""

    code = "credentials_error"


class CredentialsMissingError(CredentialsError):
    """The request has no credentials."""

    code = "credentials_missing"


class CredentialsInvalidError(CredentialsError):
    """The key or token is not one of this server, or has been revoked."""

    code = "credentials_invalid"


class KeyExpiredError(CredentialsError):
    """The key was valid and is no longer."""

    code = "key_expired"


class TokenExpiredError(CredentialsError):
    """The token of the identity provider was valid and is no longer."""

    code = "token_expired"


class ScopeMissingError(AccessError):
    """The caller is known, but may not do this."""

    code = "scope_missing"


class RateLimitedError(AccessError):
    """The caller asks too often."""

    code = "rate_limited"

    def __init__(self, message: str, *, cure: str, retry_after_s: int) -> None:
        super().__init__(message, cure=cure)
        self.retry_after_s = retry_after_s


class IdentityProviderError(HepamapError):
    """The public keys of the identity provider cannot be fetched or read."""

    code = "identity_provider_unavailable"


class UnprotectedError(HepamapError):
    """The server would listen on a network and ask nobody for credentials; or its access settings contradict each other."""

    code = "access_unprotected"


class KeyNotFoundError(HepamapError):
    """There is no API key of that id."""

    code = "key_not_found"


class KeyInvalidError(HepamapError):
    """An API key cannot be made as asked for."""

    code = "key_invalid"


class AuditBrokenError(HepamapError):
    """The audit trail is not as it was written."""

    code = "audit_broken"
