"""Which files of the server a client may name, and under which names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hepamap.api.client_paths import ClientPath, mapped, parse_client_path
from hepamap.api.errors import SlideNotAllowedError


@dataclass(frozen=True, slots=True)
class SlideFolders:
    """What a client may name."""

    roots: Sequence[Path]
    """Folders that slides may be analysed from, resolved."""
    mappings: Mapping[str, Path]
    """The client's prefixes, and the folder of this server that each means."""

    def find(self, path: str) -> Path:
        """The file that a client's path means, all links followed; it need not exist.

        Args:
            path: as the client sent it: a path of this server, or one that begins with a prefix of the table.

        Raises:
            SlideNotAllowedError: it lies in none of the roots. Whether it exists makes no difference, so that nobody can feel
                their way through the rest of the disk.
        """
        named = parse_client_path(path)
        here = None if named.climbs else mapped(named, self.mappings)
        if here is None:
            here = _own_path(path, named)
        if here is None:
            raise self._outside(path) if named.climbs else self._not_mapped(path, named)
        try:
            resolved = here.resolve()
        except (OSError, ValueError, RuntimeError) as error:
            # A name too long, a NUL in it, or links in a circle.
            raise self._outside(path) from error
        if not any(resolved.is_relative_to(root) for root in self.roots):
            raise self._outside(path)
        return resolved

    def _outside(self, path: str) -> SlideNotAllowedError:
        return SlideNotAllowedError(
            f"The path {path!r} is not inside a folder that slides may be analysed from.",
            cure=self._cure(),
            reason="outside_roots",
        )

    def _not_mapped(self, path: str, named: ClientPath) -> SlideNotAllowedError:
        if not named.anchor:
            return SlideNotAllowedError(
                f"The path {path!r} does not say where it begins.", cure=self._cure(), reason="path_not_mapped"
            )
        # The folder is what an operator would map; the client knows it, since it sent it.
        folder = str(ClientPath(named.anchor, named.parts[:1] if named.parts[1:] else ()))
        return SlideNotAllowedError(
            f"The path {path!r} is one of the client's machine, and this server does not know which folder it means.",
            cure=f"Ask the operator to map {folder!r} to a slide folder (HEPAMAP_PATH_MAPPINGS). Or: {self._cure()}",
            reason="path_not_mapped",
        )

    def _cure(self) -> str:
        if not self.roots:
            return "This server has no slide folders (HEPAMAP_SLIDE_ROOTS). Upload the slide, or ask the operator to name one."
        named = ", ".join(str(root) for root in self.roots)
        return f"Give the absolute path, as this server sees it, of a slide inside: {named}. Or upload the slide."


def _own_path(text: str, named: ClientPath) -> Path | None:
    """A path of this server's own, given as such or as a file: address."""
    if Path(text).is_absolute():
        return Path(text)
    own = Path(str(named))
    return own if text.lower().startswith("file:") and own.is_absolute() and not str(named).startswith("//") else None
