"""Which files of the server a client may name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hepamap.api.errors import SlideNotAllowedError


def allowed_slide(path: str, roots: Sequence[Path]) -> Path:
    """The file that a client's path means, all links followed.

    Args:
        path: as the client sent it; must be absolute.
        roots: folders that slides may be analysed from, resolved.

    Raises:
        SlideNotAllowedError: it lies in none of them. Whether it exists makes no difference, so that nobody can feel
            their way through the rest of the disk.
    """
    try:
        resolved = Path(path).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        # A name too long, a NUL in it, or links in a circle.
        raise _refusal(path, roots) from error
    if not Path(path).is_absolute() or not any(resolved.is_relative_to(root) for root in roots):
        raise _refusal(path, roots)
    return resolved


def _refusal(path: str, roots: Sequence[Path]) -> SlideNotAllowedError:
    if roots:
        named = ", ".join(str(root) for root in roots)
        cure = f"Give the absolute path, as this server sees it, of a slide inside: {named}. Or upload the slide."
    else:
        cure = "This server has no slide folders (HEPAMAP_SLIDE_ROOTS). Upload the slide, or ask the operator to name one."
    return SlideNotAllowedError(f"The path {path!r} is not inside a folder that slides may be analysed from.", cure=cure)
