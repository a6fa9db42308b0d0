"""Which format a file has, and its reader."""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from pathlib import Path

from hepamap.exchange import hdf5, saved_model
from hepamap.exchange.errors import ModelFileUnsafeError
from hepamap.exchange.keras_hdf5 import read_named, read_numbered
from hepamap.exchange.source import MAX_FILE_BYTES, MAX_JSON_BYTES, SourceModel, parse_json, unreadable

_ZIP_MAGIC = b"PK\x03\x04"
_ZIP_MEMBERS = ("config.json", "model.weights.h5")
_MAX_RATIO = 200  # weights hardly shrink, JSON by a factor of about 20


def read_model_file(path: Path) -> SourceModel:
    """Read a model file as numbers and description; nothing in it is run.

    Args:
        path: Keras .h5, .keras or .weights.h5, or the folder of a SavedModel.

    Raises:
        ModelFileUnreadableError: it is none of these, or damaged.
        ModelFileUnsafeError: it leads out of itself, or would unpack to too much.
        LayerRefusedError: it has weights of a layer that is not known.
    """
    if path.is_dir():
        return saved_model.read_saved_model(path)
    try:
        with path.open("rb") as file:
            start = file.read(8)
        size = path.stat().st_size
    except OSError as error:
        raise unreadable(path.name, error.strerror or "it cannot be opened") from error
    if size > MAX_FILE_BYTES:
        raise ModelFileUnsafeError(
            f"The model file {path.name} has {size / 2**30:.1f} GiB.", cure="The networks of the paper have a tenth of a GiB."
        )
    if start == hdf5.MAGIC:
        return _read_hdf5(path)
    if start.startswith(_ZIP_MAGIC):
        return _read_zip(path)
    raise unreadable(path.name, "it is neither HDF5 nor a Keras zip file")


def _read_hdf5(path: Path) -> SourceModel:
    with hdf5.open_hdf5(path, path.name) as content:
        described = content.text("", "model_config")
        if described is not None and "model_weights" in content.groups:
            version = content.text("", "keras_version")
            description = parse_json(described, path.name)
            return SourceModel(
                "Keras HDF5, whole model", _keras(version), tuple(read_named(content, "model_weights")), description
            )
        if content.texts("", "layer_names"):
            layers = tuple(read_named(content, ""))
            return SourceModel("Keras HDF5, weights only", _keras(content.text("", "keras_version")), layers, None)
        layers = tuple(read_numbered(content))
    if not layers:
        raise unreadable(path.name, "it is HDF5, but holds no weights as Keras writes them")
    return SourceModel("Keras 3 weights", None, layers, None)


def _read_zip(path: Path) -> SourceModel:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            for name in _ZIP_MEMBERS:
                if name not in members:
                    raise unreadable(path.name, f"it is a zip file without {name}")
                _require_plain(members[name])
            description = parse_json(archive.read("config.json"), path.name)
            metadata = members.get("metadata.json")
            version = None
            if metadata is not None:
                _require_plain(metadata)
                version = parse_json(archive.read(metadata), path.name).get("keras_version")
            weights = archive.read("model.weights.h5")
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise unreadable(path.name, f"its zip is damaged ({type(error).__name__})") from error
    with hdf5.open_hdf5(io.BytesIO(weights), path.name) as content:
        layers = tuple(read_numbered(content))
    return SourceModel("Keras zip file (.keras)", _keras(str(version) if version else None), layers, description)


def _require_plain(info: zipfile.ZipInfo) -> None:
    limit = MAX_FILE_BYTES if info.filename.endswith(".h5") else MAX_JSON_BYTES
    if info.file_size > limit or info.file_size > _MAX_RATIO * max(info.compress_size, 1024):
        raise ModelFileUnsafeError(
            f"{info.filename} in the model file would unpack to {info.file_size / 2**20:.0f} MiB.",
            cure="Keras writes no such files; check where it comes from.",
        )


def _keras(version: str | None) -> str | None:
    return None if version is None else f"Keras {version[:20]}"
