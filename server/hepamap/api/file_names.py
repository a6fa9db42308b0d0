"""Names of files that clients send."""

from __future__ import annotations

import re

_NAME_MAX_BYTES = 150


def safe_name(name: str) -> str:
    """A client's file name without folders and without anything a shell or a file system could take amiss.

    The ending stays, since OpenSlide tells some formats by it.
    """
    last = re.split(r"[/\\]", name)[-1]
    cleaned = re.sub(r"[^\w.\- ]", "_", last).strip(". ")
    stem, dot, ending = cleaned.rpartition(".")
    if not dot:
        stem, ending = cleaned, ""
    room = _NAME_MAX_BYTES - len(dot) - len(ending.encode()[:20])
    stem = stem.encode()[:room].decode(errors="ignore")
    return (stem or "slide") + dot + ending.encode()[:20].decode(errors="ignore")
