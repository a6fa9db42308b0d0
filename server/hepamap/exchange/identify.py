"""Which network of the registry a file holds, and which of its weights goes where. Imports keras."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hepamap.exchange.errors import ImportUnconfirmedError, NetworkAmbiguousError, NetworkMismatchError
from hepamap.exchange.graph import Chain, Step, chain_of
from hepamap.exchange.source import VARIABLES, SourceLayer, SourceModel
from hepamap.networks import BACKBONES, HEADS, build_network

if TYPE_CHECKING:
    import keras

_HEAD_STARTS = ("gap", "flatten")
_FEATURES = 512


@dataclass(frozen=True, slots=True)
class Named:
    """A network of the registry."""

    backbone: str
    head: str


def identify(source: SourceModel, chain: Chain | None, backbone: str | None, head: str | None) -> Named:
    """Find the network of a file.

    Args:
        source: the file.
        chain: its own graph, where it has one.
        backbone: what the user says, or None.
        head: the same.

    Raises:
        NetworkMismatchError: it is none of the registry, or not what the user says.
        NetworkAmbiguousError: several fit, and the user does not say which.
    """
    if chain is None:
        backbones, heads = _by_weights(source)
    else:
        backbones, heads = _by_chain(chain, backbone, head)
    return Named(_choose("backbone", backbone, backbones, BACKBONES), _choose("head", head, heads, HEADS))


def patch_side(source: SourceModel, chain: Chain | None, said_m: int | None) -> int:
    """Side of a patch, model px: from the file, where a file's network has one size only, else as said.

    Raises:
        NetworkMismatchError: the file says otherwise.
        ImportUnconfirmedError: neither says it.
    """
    found = chain.side_m if chain is not None else None
    dense = source.of_kind("dense")
    if found is None and len(dense) > 1:
        cells = dense[0].arrays["kernel"].shape[0] / _FEATURES
        found = round(cells**0.5 * 32)
    if found is not None and said_m not in (None, found):
        raise NetworkMismatchError(
            f"The file's network looks at patches of {found} px, not {said_m}.", cure=f"Leave --patch away, or give {found}."
        )
    if found is None and said_m is None:
        raise ImportUnconfirmedError(
            "The file does not say how large a patch its network looks at.", cure="Give --patch, such as 64 at 5X or 128 at 10X."
        )
    return found if found is not None else int(said_m or 0)


def place(source: SourceModel, model: keras.Model, chain: Chain | None) -> dict[str, SourceLayer]:
    """Find for each layer of a network its layer in the file.

    Kind by kind, in the order of the file's own graph, else of the network. Names have to agree with that where they are known
    ones, and numbers (conv2d_17, conv2d_18) have to rise; otherwise the file's order cannot be trusted.

    Returns:
        Layers of the file by the names of the network's layers.

    Raises:
        NetworkMismatchError: numbers or shapes of layers differ.
        NetworkAmbiguousError: names contradict the order.
    """
    placed: dict[str, SourceLayer] = {}
    wanted = _weighted(model)
    for kind in VARIABLES:
        targets = [(name, shapes) for name, of_kind, shapes in wanted if of_kind == kind]
        known = [name for name, _ in targets] if chain is None else chain.names(kind)
        layers = _sorted_by_known_names(source.of_kind(kind), known)
        if not len(layers) == len(targets) == len(known):
            raise NetworkMismatchError(
                f"The file has weights of {len(layers)} layers of the kind “{kind}”, but {model.name} has {len(targets)}.",
                cure="Check --backbone and --head.",
            )
        for (name, shapes), layer in zip(targets, layers, strict=True):
            _require_shapes(name, shapes, layer)
            placed[name] = layer
    return placed


def by_steps(chain: Chain, placed: Mapping[str, SourceLayer], model: keras.Model) -> dict[str, SourceLayer]:
    """The layers of a file by the names in its own graph, which has the same steps as the network."""
    named: dict[str, SourceLayer] = {}
    for kind in VARIABLES:
        targets = [name for name, of_kind, _ in _weighted(model) if of_kind == kind]
        named |= {step: placed[target] for step, target in zip(chain.names(kind), targets, strict=True)}
    return named


def pack_weights(placed: Mapping[str, SourceLayer]) -> dict[str, NDArray[Any]]:
    """Weights as a pack holds them."""
    return {f"{name}/{variable}": array for name, layer in placed.items() for variable, array in layer.arrays.items()}


def _sorted_by_known_names(layers: list[SourceLayer], known: list[str]) -> list[SourceLayer]:
    names = [layer.name for layer in layers]
    if set(names) == set(known) and len(set(names)) == len(names):
        return sorted(layers, key=lambda layer: known.index(layer.name))
    for here, name in enumerate(names):
        if name in known and known.index(name) != here:
            raise _contradiction(name)
    last: dict[str, int] = {}
    for name in names:
        stem, _, number = name.rpartition("_")
        stem, value = (stem, int(number)) if number.isdigit() and stem else (name, 0)
        if value <= last.get(stem, -1):
            raise _contradiction(name)
        last[stem] = value
    return layers


def _contradiction(name: str) -> NetworkAmbiguousError:
    return NetworkAmbiguousError(
        f"The names of the layers and their order in the file contradict each other at “{name}”.",
        cure="Save the whole model (model.save): its graph says which layer comes when.",
    )


def _require_shapes(name: str, shapes: Mapping[str, tuple[int, ...]], layer: SourceLayer) -> None:
    found = {variable: array.shape for variable, array in layer.arrays.items()}
    if found != dict(shapes):
        raise NetworkMismatchError(
            f"“{layer.name}” has the weights {_listed(found)}, but {name} of the network needs {_listed(shapes)}.",
            cure="Check --backbone, --head and --patch; U-Net, FCN and other networks cannot be imported.",
        )
    for variable, array in layer.arrays.items():
        if not np.isfinite(array).all():
            raise NetworkMismatchError(
                f"“{layer.name}/{variable}” has values that are no numbers.", cure="Train the model again."
            )


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{variable} {shape}" for variable, shape in sorted(shapes.items()))


def _weighted(model: keras.Model) -> list[tuple[str, str, dict[str, tuple[int, ...]]]]:
    """Name, kind and shapes of the layers with weights, in order."""
    layers = []
    for layer in model.layers:
        shapes = {v.path.rpartition("/")[2]: tuple(v.shape) for v in layer.weights if "seed_generator" not in v.path}
        if shapes:
            kind = "norm" if "gamma" in shapes else "conv" if len(shapes["kernel"]) == 4 else "dense"
            layers.append((layer.name, kind, shapes))
    return layers


def _by_weights(source: SourceModel) -> tuple[list[str], list[str]]:
    """The networks whose numbers of layers are the file's: dropout and regularisers leave no trace in weights."""
    dense, norms = len(source.of_kind("dense")), len(source.of_kind("norm"))
    heads = [head for head, steps in _head_steps().items() if _count(steps, "dense") == dense]
    norms -= _count(_head_steps()[heads[0]], "norm") if heads else 0
    channels = [layer.arrays["moving_mean"].shape[0] for layer in source.of_kind("norm")][: max(0, norms)]
    convolutions = len(source.of_kind("conv"))
    backbones = [
        backbone
        for backbone, steps in _backbone_steps().items()
        if _norm_channels(steps) == channels and _count(steps, "conv") == convolutions
    ]
    return backbones, heads


def _norm_channels(steps: Sequence[Step]) -> list[int]:
    channels, found = 3, []
    for step in steps:
        channels = step.settings[0] if step.kind == "conv" else channels
        if step.kind == "norm":
            found.append(channels)
    return found


def _by_chain(chain: Chain, backbone: str | None, head: str | None) -> tuple[list[str], list[str]]:
    """The networks whose steps are the file's, in training too; what the user names need only compute the same."""
    cut = next((i for i, step in enumerate(chain.steps) if step.kind in _HEAD_STARTS), len(chain.steps))
    trunk, top = chain.steps[:cut], chain.steps[cut:]
    names = []
    for said, steps, known in ((backbone, trunk, _backbone_steps()), (head, top, _head_steps())):
        exact = [name for name, wanted in known.items() if _key(steps, training=True) == _key(wanted, training=True)]
        same = [name for name, wanted in known.items() if _key(steps, training=False) == _key(wanted, training=False)]
        names.append(exact or (same if said is not None else []))
        if not same:
            raise NetworkMismatchError(
                f"The file's network is none of the paper: {_first_difference(steps, known)}.",
                cure="Only VGG16 with the changes and heads of the paper can be imported.",
            )
        if not exact and said is None:
            raise NetworkAmbiguousError(
                f"The file's network computes what {', '.join(same)} do, but with other dropout or regularisation than each.",
                cure="Name it by --backbone and --head: what is named is used when it is trained further.",
            )
    return names[0], names[1]


def _key(steps: Sequence[Step], *, training: bool) -> list[tuple[Any, ...]]:
    if training:
        return [(step.kind, step.settings, step.training) for step in steps]
    return [(step.kind, step.settings) for step in steps if step.kind != "dropout"]


def _first_difference(steps: Sequence[Step], known: Mapping[str, Sequence[Step]]) -> str:
    """Where a chain leaves the nearest network of the registry."""
    mine = [step for step in steps if step.kind != "dropout"]
    furthest = 0
    for wanted in known.values():
        pairs = zip(_key(mine, training=False), _key(wanted, training=False), strict=False)
        furthest = max(furthest, next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(mine), len(wanted))))
    if furthest < len(mine):
        step = mine[furthest]
        return f"it differs from all at “{step.layer}” ({step.kind} {', '.join(map(str, step.settings))})"
    return "it ends early"


def _choose(kind: str, said: str | None, found: Sequence[str], known: Mapping[str, Any]) -> str:
    if said is not None and said not in known:
        raise NetworkMismatchError(f"There is no {kind} named “{said}”.", cure=f"Use one of {', '.join(known)}.")
    if not found:
        raise NetworkMismatchError(
            f"The weights in the file are those of no {kind} of the paper.", cure=f"The {kind}s are {', '.join(known)}."
        )
    if said is not None:
        if said not in found:
            raise NetworkMismatchError(
                f"The file's {kind} is {' or '.join(found)}, not {said}.", cure=f"Leave --{kind} away, or give {found[0]}."
            )
        return said
    if set(found) == {"VGG16", "VGG16Base"}:
        return "VGG16"  # one network under two names
    if len(found) > 1:
        raise NetworkAmbiguousError(
            f"The file fits the {kind}s {', '.join(found)}: they differ in what leaves no trace in weights.",
            cure=f"Give --{kind}.",
        )
    return found[0]


def _count(steps: Sequence[Step], kind: str) -> int:
    return sum(step.kind == kind for step in steps)


@cache
def _backbone_steps() -> dict[str, tuple[Step, ...]]:
    """The steps of every backbone, from the registry's own networks."""
    steps = {}
    for name in BACKBONES:
        chain = network_chain(build_network(name, "GAP", 32))
        steps[name] = chain.steps[: next(i for i, step in enumerate(chain.steps) if step.kind == "gap")]
    return steps


@cache
def _head_steps() -> dict[str, tuple[Step, ...]]:
    import keras

    steps = {}
    for name, build in HEADS.items():
        features = keras.Input((1, 1, _FEATURES))
        described = json.loads(keras.Model(features, build(features)).to_json())
        # Features are no image: the chain is read as a nested model's, whose input is not looked at.
        described["config"]["layers"][0]["config"]["batch_shape"] = [None, 1, 1, 3]
        steps[name] = chain_of(described).steps
    return steps


def network_chain(model: keras.Model) -> Chain:
    """The steps of a network of the registry."""
    return chain_of(json.loads(model.to_json()))
