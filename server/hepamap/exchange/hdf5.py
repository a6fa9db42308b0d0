"""HDF5 files from strangers: opened without following anything that leads out of the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hepamap.exchange.errors import ModelFileUnsafeError
from hepamap.exchange.source import check_size, unreadable

MAGIC = b"\x89HDF\r\n\x1a\n"

_MAX_OBJECTS = 20_000
_MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Hdf5Content:
    """What a file holds: every array and every attribute, by full path without a leading slash."""

    datasets: Mapping[str, h5py.Dataset]
    groups: Mapping[str, h5py.Group]

    def texts(self, group: str, attribute: str) -> list[str]:
        """A list of names; Keras cuts long ones into name0, name1 and so on."""
        attributes = self.groups[group].attrs
        if attribute in attributes:
            return [_text(item) for item in np.atleast_1d(attributes[attribute])]
        pieces: list[str] = []
        while f"{attribute}{len(pieces)}" in attributes and len(pieces) < _MAX_OBJECTS:
            pieces.append(f"{attribute}{len(pieces)}")
        return [_text(item) for piece in pieces for item in np.atleast_1d(attributes[piece])]

    def text(self, group: str, attribute: str) -> str | None:
        """An attribute that is one text."""
        value = self.groups[group].attrs.get(attribute)
        return None if value is None else _text(value)

    def arrays(self, paths: list[str]) -> list[NDArray[Any]]:
        """Read arrays, all of them or none.

        Raises:
            ModelFileUnsafeError: they are too large together.
        """
        check_size(self.datasets[path].shape for path in paths)
        return [np.asarray(self.datasets[path][()]) for path in paths]


@contextmanager
def open_hdf5(source: Path | IO[bytes], name: str) -> Iterator[Hdf5Content]:
    """Open a file and look through it once.

    Raises:
        ModelFileUnreadableError: it is truncated, or no HDF5.
        ModelFileUnsafeError: it has links, external or virtual data, or more objects than a model has.
    """
    try:
        with h5py.File(source, "r") as file:
            yield _content(file)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeDecodeError) as error:  # h5py has no error of its own
        raise unreadable(name, f"its HDF5 is damaged or not that of a Keras model ({type(error).__name__})") from error


def _content(file: h5py.File) -> Hdf5Content:
    datasets: dict[str, h5py.Dataset] = {}
    groups: dict[str, h5py.Group] = {"": file}
    waiting: list[tuple[str, h5py.Group]] = [("", file)]
    while waiting:
        path, group = waiting.pop()
        for key in group:
            _require_hard_link(group, key)
            below, item = f"{path}/{key}".lstrip("/"), group[key]
            if isinstance(item, h5py.Group):
                groups[below] = item
                waiting.append((below, item))
            elif isinstance(item, h5py.Dataset):
                datasets[below] = _checked(item, below)
            if len(groups) + len(datasets) > _MAX_OBJECTS or below.count("/") > _MAX_DEPTH:
                raise _unsafe("has more groups and arrays than any network")
    return Hdf5Content(datasets, groups)


def _require_hard_link(group: h5py.Group, key: str) -> None:
    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise _unsafe(f"has a link at “{key}” that may lead out of it")


def _checked(dataset: h5py.Dataset, path: str) -> h5py.Dataset:
    if dataset.external or dataset.is_virtual:
        raise _unsafe(f"keeps the array “{path}” in another file")
    return dataset


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _unsafe(what: str) -> ModelFileUnsafeError:
    return ModelFileUnsafeError(
        f"The model file {what}.", cure="Keras writes no such files; check where it comes from, and save the model again."
    )
