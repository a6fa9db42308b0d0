"""A file's own description of its network (Keras' JSON) as a chain of steps. Nothing is built from it, let alone run.

Only the layers that networks of the paper are made of have a place in a chain, with plain settings. Everything else is
refused by name: a Lambda carries code, and what another class would do is not in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hepamap.exchange.errors import LayerRefusedError, NetworkMismatchError

_MODELS = ("Functional", "Sequential", "Model")
_MODULES = ("keras", "tf_keras", "tensorflow.keras", "tensorflow.python.keras", "builtins")
_MAX_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a network does.

    Attributes:
        kind: conv, norm, dense, relu, softmax, pool, gap, flatten or dropout.
        layer: name of the layer that it comes from.
        settings: what has to be equal for two steps to compute the same.
        training: what matters in training only.
    """

    kind: str
    layer: str
    settings: tuple[Any, ...] = ()
    training: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Chain:
    """A network without branches.

    Attributes:
        side_m: side of its square RGB input, px; None where any fits.
        steps: in order.
    """

    side_m: int | None
    steps: tuple[Step, ...]

    @property
    def computed(self) -> tuple[Step, ...]:
        """The steps that do something to an answer: all but dropout."""
        return tuple(step for step in self.steps if step.kind != "dropout")

    def names(self, kind: str) -> list[str]:
        """Names of the layers of a kind, in order."""
        return [step.layer for step in self.steps if step.kind == kind]


@dataclass(slots=True)
class _Reading:
    shape: Any = None
    steps: list[Step] = field(default_factory=list)


def chain_of(description: Mapping[str, Any]) -> Chain:
    """Read a description.

    Args:
        description: the JSON of a Functional or Sequential model, of Keras 2 or 3.

    Raises:
        LayerRefusedError: there is a layer or setting that no network of the paper has.
        NetworkMismatchError: the layers are not one chain, or the input is no square RGB image.
    """
    reading = _Reading()
    try:
        _read_model(_lists(description), reading, 0)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise NetworkMismatchError(
            f"The file's description of its network is incomplete ({type(error).__name__}: {error}).",
            cure="Save the model again with Keras.",
        ) from error
    except RecursionError as error:
        raise NetworkMismatchError(
            "The file's description of its network is nested deeper than any network's.", cure="Save the model again with Keras."
        ) from error
    return Chain(_side(reading.shape), tuple(reading.steps))


def _lists(value: Any) -> Any:
    """SavedModels write tuples as {"class_name": "__tuple__", "items": […]}."""
    if isinstance(value, Mapping):
        if value.get("class_name") in ("__tuple__", "TensorShape") and "items" in value:
            return [_lists(item) for item in value["items"]]
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, list) else value


def _read_model(described: Any, reading: _Reading, depth: int) -> None:
    _require_known(described)
    if described["class_name"] not in _MODELS or depth > _MAX_DEPTH:
        raise _refused(str(described["class_name"]), str(described.get("config", {}).get("name", "")))
    config = described["config"]
    if isinstance(config, list):  # Sequential of early Keras 2
        config = {"layers": config}
    layers = config["layers"]
    if described["class_name"] != "Sequential":
        layers = _in_order(layers)
    if reading.shape is None:
        reading.shape = config.get("batch_input_shape") or config.get("build_input_shape")
    for layer in layers:
        if layer["class_name"] in _MODELS:
            _read_model(layer, reading, depth + 1)
        else:
            _read_layer(layer, reading)


def _require_known(described: Mapping[str, Any]) -> None:
    """Refuse objects that only share a name with Keras' own."""
    name, registered, module = (described.get(key) for key in ("class_name", "registered_name", "module"))
    foreign = module is not None and not str(module).startswith(_MODULES)
    if foreign or ">" in str(name) or ">" in str(registered or ""):
        raise _refused(f"{module or registered or ''}.{name}".lstrip("."), str(described.get("config", {}).get("name", "")))


def _in_order(layers: list[Any]) -> list[Any]:
    """The layers of a functional model from its input on; each must have one successor."""
    by_name = {layer.get("name") or layer["config"]["name"]: layer for layer in layers}
    after: dict[str | None, str] = {}
    for name, layer in by_name.items():
        before = _inbound(layer)
        if len(before) > 1 or (before[0] if before else None) in after:
            raise NetworkMismatchError(
                f"The layers of the file's network are no chain: see “{name}”.",
                cure="Only the networks of the paper can be imported; U-Net and FCN are trained with `hepamap train`.",
            )
        after[before[0] if before else None] = name
    ordered: list[Any] = []
    name_ = after.get(None)
    while name_ is not None:
        ordered.append(by_name[name_])
        name_ = after.get(name_)
    if len(ordered) != len(by_name):
        raise NetworkMismatchError("The layers of the file's network are no chain.", cure="Save the model again with Keras.")
    return ordered


def _inbound(layer: Mapping[str, Any]) -> list[str]:
    """Names of the layers that feed a layer; Keras 2 writes [[["name", 0, 0, {}]]], Keras 3 tensors with a history."""
    names: list[str] = []
    for node in layer.get("inbound_nodes") or ():
        if isinstance(node, Mapping):
            names += [str(tensor["config"]["keras_history"][0]) for tensor in _tensors(node["args"])]
        else:
            tensors = node if isinstance(node[0], list) else [node]
            names += [str(tensor[0]) for tensor in tensors]
    return names


def _tensors(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping) and value.get("class_name") == "__keras_tensor__":
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _tensors(item)


def _read_layer(layer: Mapping[str, Any], reading: _Reading) -> None:
    _require_known(layer)
    kind, config = layer["class_name"], layer["config"]
    name = str(config["name"])
    shape = config.get("batch_input_shape") or config.get("batch_shape")
    if reading.shape is None and shape:
        reading.shape = shape
    if kind == "InputLayer":
        return
    if kind not in _READERS:
        raise _refused(kind, name)
    if config.get("data_format") not in (None, "channels_last"):
        raise NetworkMismatchError(f"The layer “{name}” has its channels first.", cure="Save the model with channels last.")
    if "axis" in config:
        _require_last_axis(name, config["axis"], reading)
    reading.steps += [step for step in _READERS[kind](name, config) if step is not None]


def _require_last_axis(name: str, axis: Any, reading: _Reading) -> None:
    axis = axis[0] if isinstance(axis, list) else axis
    rank = 2 if any(step.kind in ("gap", "flatten") for step in reading.steps) else 4
    if axis not in (-1, rank - 1):
        raise NetworkMismatchError(f"The layer “{name}” does not normalise channels.", cure="Save the model with channels last.")


def _refused(kind: str, name: str) -> LayerRefusedError:
    return LayerRefusedError(
        f"The file's network has a layer of the class {kind} (“{name}”), which no network of the paper has; it was not run.",
        cure="Build the model without it: what it does would have to be trusted, as it is code and not weights.",
    )


def _conv(name: str, config: Mapping[str, Any]) -> list[Step | None]:
    shape = tuple(tuple(config.get(key) or (1, 1)) for key in ("kernel_size", "strides", "dilation_rate"))
    settings = (int(config["filters"]), *shape, str(config["padding"]), int(config.get("groups") or 1))
    return [Step("conv", name, (*settings, bool(config.get("use_bias", True)))), _activation(name, config)]


def _dense(name: str, config: Mapping[str, Any]) -> list[Step | None]:
    training = (_l2(config.get("kernel_regularizer")),)
    step = Step("dense", name, (int(config["units"]), bool(config.get("use_bias", True))), training)
    return [step, _activation(name, config)]


def _l2(regularizer: Any) -> float:
    settings = (regularizer or {}).get("config") or {}
    return float(f"{float(settings.get('l2') or 0):.3g}")  # files hold it as the nearest float32


def _norm(name: str, config: Mapping[str, Any]) -> list[Step | None]:
    return [Step("norm", name, (float(config["epsilon"]), bool(config["center"]), bool(config["scale"])))]


def _pool(name: str, config: Mapping[str, Any]) -> list[Step | None]:
    size = tuple(config["pool_size"])
    return [Step("pool", name, (size, tuple(config.get("strides") or size), str(config["padding"])))]


def _dropout(name: str, config: Mapping[str, Any]) -> list[Step | None]:
    return [Step("dropout", name, training=(float(f"{float(config['rate']):.3g}"),))]


def _gap(name: str, config: Mapping[str, Any]) -> list[Step | None]:
    if config.get("keepdims"):
        raise NetworkMismatchError(f"The layer “{name}” keeps its dimensions.", cure="Only the paper's heads can be imported.")
    return [Step("gap", name)]


def _relu(name: str, config: Mapping[str, Any]) -> list[Step | None]:
    if config.get("max_value") is not None or config.get("negative_slope") or config.get("threshold"):
        raise NetworkMismatchError(f"The layer “{name}” is no plain ReLU.", cure="Only the paper's networks can be imported.")
    return [Step("relu", name)]


def _activation(name: str, config: Mapping[str, Any]) -> Step | None:
    activation = config.get("activation") or "linear"
    if activation == "linear":
        return None
    if activation not in ("relu", "softmax"):
        raise LayerRefusedError(
            f"The layer “{name}” has the activation {activation!r}, which no network of the paper has.",
            cure="Only ReLU and softmax can be imported.",
        )
    return Step(str(activation), name)


_READERS: dict[str, Callable[[str, Mapping[str, Any]], list[Step | None]]] = {
    "Conv2D": _conv,
    "Dense": _dense,
    "BatchNormalization": _norm,
    "BatchNormalizationV1": _norm,
    "MaxPooling2D": _pool,
    "Dropout": _dropout,
    "GlobalAveragePooling2D": _gap,
    "Flatten": lambda name, _config: [Step("flatten", name)],
    "ReLU": _relu,
    "Softmax": lambda name, _config: [Step("softmax", name)],
    "Activation": lambda name, config: [_activation(name, config)],
}


def _side(shape: Any) -> int | None:
    if shape is None:
        return None
    if len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
        raise NetworkMismatchError(
            f"The file's network wants an input of shape {shape}, not square RGB patches.",
            cure="Give a network that looks at patches (patch, patch, 3).",
        )
    return None if shape[1] is None else int(shape[1])
