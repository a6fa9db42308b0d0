"""TensorFlow SavedModels: the variables of the checkpoint, by the names in its own list. The graph is never loaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepamap.exchange.errors import ModelFileUnsafeError
from hepamap.exchange.source import (
    MAX_FILE_BYTES,
    MAX_JSON_BYTES,
    SourceLayer,
    SourceModel,
    check_size,
    natural,
    parse_json,
    source_layer,
    unreadable,
)

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_LAYERED = re.compile(rf"((?:layer_with_weights-\d+/)+)\w+{_VALUE}")
_LISTED = re.compile(rf"variables/\d+{_VALUE}")
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


def read_saved_model(folder: Path) -> SourceModel:
    """Read the weights of a SavedModel, and Keras 2's description of it where there is one.

    Raises:
        ModelFileUnreadableError: the folder is none, or its checkpoint is damaged.
        ModelFileUnsafeError: it is far too large.
    """
    if not (folder / "saved_model.pb").is_file() or not (folder / "variables" / "variables.index").is_file():
        raise unreadable(folder.name, "the folder is no SavedModel (saved_model.pb, variables/variables.index)")
    if sum(path.stat().st_size for path in (folder / "variables").iterdir()) > MAX_FILE_BYTES:
        raise ModelFileUnsafeError(f"The SavedModel {folder.name} is too large.", cure="Check where it comes from.")
    layers = _layers(folder)
    metadata = folder / "keras_metadata.pb"
    description = None
    if metadata.is_file() and metadata.stat().st_size <= MAX_JSON_BYTES:
        text = _root_metadata(metadata.read_bytes(), folder.name)
        description = None if text is None else parse_json(text, folder.name)
    return SourceModel("TensorFlow SavedModel", None, layers, description)


def _layers(folder: Path) -> tuple[SourceLayer, ...]:
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        names = _full_names(reader.get_tensor(_OBJECT_GRAPH))
        shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        keys = sorted((key for key in names if _is_weight(key) and types[key].is_floating), key=natural)
        check_size(tuple(shapes[key]) for key in keys)
        found: dict[str, list[tuple[str, NDArray[Any]]]] = {}
        for key in keys:
            layer, _, variable = names[key].rpartition("/")
            place = match[1] if (match := _LAYERED.fullmatch(key)) else layer
            found.setdefault(f"{place}\n{layer}", []).append((variable, np.asarray(reader.get_tensor(key))))
    except (tf.errors.OpError, ValueError, KeyError, RuntimeError) as error:
        raise unreadable(folder.name, f"its variables are damaged ({type(error).__name__})") from error
    return tuple(source_layer(place.rpartition("\n")[2].rpartition("/")[2], parts) for place, parts in found.items())


def _is_weight(key: str) -> bool:
    return bool(_LAYERED.fullmatch(key) or _LISTED.fullmatch(key))


def _full_names(graph: bytes) -> dict[str, str]:
    """Name of each variable, such as conv2d_17/kernel, by its key in the checkpoint."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    parsed = TrackableObjectGraph()
    try:
        parsed.ParseFromString(graph)
    except DecodeError as error:
        raise ValueError("the list of variables") from error
    return {item.checkpoint_key: item.full_name for node in parsed.nodes for item in node.attributes if item.full_name}


def _root_metadata(data: bytes, name: str) -> str | None:
    """The JSON that Keras 2 keeps beside a SavedModel about its root object.

    The message is `SavedMetadata { repeated SavedObject nodes = 1; }` with `string node_path = 3; string metadata = 5;`.
    """
    for number, node in _fields(data, name):
        if number == 1 and isinstance(node, bytes):
            parts = dict(_fields(node, name))
            if parts.get(3) == b"root":
                return bytes(parts[5]).decode("utf-8", "replace") if isinstance(parts.get(5), bytes) else None
    return None


def _fields(message: bytes, name: str) -> list[tuple[int, bytes | int]]:
    """The fields of a protobuf message that are numbers or bytes."""
    fields: list[tuple[int, bytes | int]] = []
    place = 0
    try:
        while place < len(message):
            tag, place = _varint(message, place)
            if tag & 7 == 0:
                value, place = _varint(message, place)
                fields.append((tag >> 3, value))
            elif tag & 7 == 2:
                length, place = _varint(message, place)
                if place + length > len(message):
                    raise IndexError
                fields.append((tag >> 3, message[place : place + length]))
                place += length
            else:
                raise IndexError
    except IndexError as error:
        raise unreadable(name, "its keras_metadata.pb is damaged") from error
    return fields


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise IndexError
