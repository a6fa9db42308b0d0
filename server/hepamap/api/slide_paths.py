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
        by_table = None if named.climbs else mapped(named, self.mappings)
        here = _own_path(path, named) if by_table is None else by_table
        if here is None:
            raise self._outside(path) if named.climbs else self._not_mapped(path, named)
        # What the table leads nowhere, and is no path of this server, an operator could map.
        strange = by_table is None and not named.climbs and not self._is_inside(here)
        folder = _folder_to_map(named) if strange else ""
        try:
            resolved = here.resolve()
        except (OSError, ValueError, RuntimeError) as error:
            # A name too long, a NUL in it, or links in a circle.
            raise self._outside(path, folder) from error
        if not self._is_inside(resolved):
            raise self._outside(path, folder)
        return resolved

    def _is_inside(self, path: Path) -> bool:
        return any(path.is_relative_to(root) for root in self.roots)

    def _outside(self, path: str, folder: str = "") -> SlideNotAllowedError:
        to_map = f"If it is a path of the client's machine, ask the operator {_to_map(folder)} " if folder else ""
        return SlideNotAllowedError(
            f"The path {path!r} is not inside a folder that slides may be analysed from.",
            cure=to_map + self._cure(),
            reason="outside_roots",
        )

    def _not_mapped(self, path: str, named: ClientPath) -> SlideNotAllowedError:
        if not named.anchor:
            return SlideNotAllowedError(
                f"The path {path!r} does not say where it begins.", cure=self._cure(), reason="path_not_mapped"
            )
        return SlideNotAllowedError(
            f"The path {path!r} is one of the client's machine, and this server does not know which folder it means.",
            cure=f"Ask the operator {_to_map(_folder_to_map(named))} {self._cure()}",
            reason="path_not_mapped",
        )

    def _cure(self) -> str:
        if not self.roots:
            return "This server has no slide folders (HEPAMAP_SLIDE_ROOTS). Upload the slide, or ask the operator to name one."
        named = ", ".join(str(root) for root in self.roots)
        return f"Give the absolute path, as this server sees it, of a slide inside: {named}. Or upload the slide."


def _folder_to_map(named: ClientPath) -> str:
    """What an operator would map: a share's or drive's first folder, a mount (/Volumes/slides); the client knows it, it sent it.

    Empty where it would be all of the client's disk.
    """
    folders = named.parts[:-1]
    if named.anchor == "/":
        return str(ClientPath("/", folders[:2])) if folders else ""
    return str(ClientPath(named.anchor, folders[:1]))


def _to_map(folder: str) -> str:
    return f"to map {folder!r} to a slide folder (HEPAMAP_PATH_MAPPINGS). Or:"


def _own_path(text: str, named: ClientPath) -> Path | None:
    """A path of this server's own, given as such or as a file: address."""
    if Path(text).is_absolute():
        return Path(text)
    own = Path(str(named))
    return own if text.lower().startswith("file:") and own.is_absolute() and not str(named).startswith("//") else None
