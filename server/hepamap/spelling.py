"""When two spellings are one name: of a patient, a tumour, a case."""

from __future__ import annotations

import unicodedata


def name_key(name: str) -> str:
    """What tells names apart: “Patient 1” and “patient  1” are one, and so is “é” as one character or as two."""
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())
