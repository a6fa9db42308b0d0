"""Answers about the audit trail, as the OpenAPI document shows them."""

from __future__ import annotations

from pydantic import Field

from hepamap import RESEARCH_USE_ONLY
from hepamap.api.schemas import Answer


class AuditEntryAnswer(Answer):
    """Who did what, when, to what."""

    seq: int = Field(description="Number of the entry; 1 for the first, without gaps.", examples=[17])
    at: str = Field(description="When (UTC, ISO 8601).", examples=["2026-01-01T12:00:00+00:00"])
    actor: str = Field(
        description="`key:<id>`, `oidc:<subject>`, `cli:<account>`, `local` or `anonymous`.", examples=["key:9f2c01ab77de"]
    )
    action: str = Field(
        description="Name of the operation or command; `refused` where the gate let nobody through. With `+37`: so many "
        "more like the one before, counted for a minute.",
        examples=["get_contours"],
    )
    status: int = Field(description="HTTP status of the answer.", examples=[200])
    object: str | None = Field(
        description="Id of the analysis, upload, verdict or key.", examples=["5f0c2b0e-6a55-4c0a-9d0b-0f0f5f3f9a11"]
    )
    slide: str | None = Field(description="Fingerprint of the slide, where an analysis is asked for.", examples=[None])
    request_id: str | None = Field(description="X-Request-ID of the answer.", examples=["4bf92f3577b34da6a3ce929d0e0e4736"])
    hash: str = Field(description="SHA-256 over the hash of the entry before and this entry.", examples=["9b74c9897bac770f…"])


class AuditPage(Answer):
    """Entries of the audit trail, oldest first."""

    items: list[AuditEntryAnswer] = Field(description="The entries.")
    head: str = Field(description="End of the trail: number and hash of the last entry.", examples=["17:9b74c9897bac770f…"])
    notice: str = Field(default=RESEARCH_USE_ONLY, description="What results may be used for.")
