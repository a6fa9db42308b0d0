"""From a model file to a pack, proven by the answers of both on the same patches."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepamap import __version__
from hepamap.exchange.errors import ImportUnconfirmedError, ModelExistsError, NetworkMismatchError, PredictionsDifferError
from hepamap.exchange.formats import read_model_file
from hepamap.exchange.graph import chain_of
from hepamap.exchange.reference import answers
from hepamap.exchange.source import SourceLayer, SourceModel
from hepamap.interrupts import interrupts_deferred
from hepamap.model_pack import InputSpec, ManifestBody, ModelPack, NetworkSpec, write_pack
from hepamap.networks.registry import check_network
from hepamap.predictor import start_backend
from hepamap.predictor.backend import policy
from hepamap.training.model_card import INTENDED_USE, model_card

TOLERANCE = 1e-5
"""By which a probability may differ before and after."""
PATCHES = 8
"""Patches that are looked at before and after."""

_STRIDE_SHARES = (8, 4, 2, 1)  # of the patch: 12.5, 25, 50, 100 %; 75 % is added
_ALIKE = 1e-3


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What a user says about a model file.

    Attributes:
        file: the file, or the folder of a SavedModel.
        id: name of the pack.
        version: of the pack.
        mpp: resolution that the network was trained at, µm/px.
        tumour_index: which of the two outputs is tumour; no file says it.
        scaling: how RGB was scaled for it; no file says it.
        patch_m: side of a patch, px; None where the file says it.
        backbone: None where the file says it.
        head: None where the file says it.
        title: one line for people.
        licence: of the weights.
    """

    file: Path
    id: str
    version: str
    mpp: float
    tumour_index: int | None
    scaling: str | None
    patch_m: int | None = None
    backbone: str | None = None
    head: str | None = None
    title: str | None = None
    licence: str = "not stated"


@dataclass(frozen=True, slots=True)
class Imported:
    """A pack that was imported.

    Attributes:
        pack: the pack.
        max_abs_difference: largest difference of a probability before and after.
        report: as the manifest holds it, under `evaluation.import`.
        notes: what a user should know.
    """

    pack: ModelPack
    max_abs_difference: float
    report: dict[str, Any]
    notes: tuple[str, ...]


def import_model(request: ImportRequest, models_dir: Path, *, overwrite: bool = False) -> Imported:
    """Import a model file.

    The tumour probabilities of eight patches are computed from the file's weights without Keras (`reference`), then by the
    pack as it is served; the pack is kept only where they agree.

    Raises:
        ImportUnconfirmedError: what no file says was not said.
        ModelExistsError: there is a pack of that id and version, and not `overwrite`.
        ModelFileUnreadableError, ModelFileUnsafeError, LayerRefusedError: see `read_model_file`.
        NetworkMismatchError, NetworkAmbiguousError: it is not a network of the paper, or not clear which.
        PredictionsDifferError: the pack answers otherwise than the file.
    """
    _require_confirmed(request)
    folder = models_dir / request.id / request.version
    if folder.exists() and not overwrite:
        raise ModelExistsError(
            f"There is a model {request.id}@{request.version} already.", cure="Give another --version, or --overwrite."
        )
    source = read_model_file(request.file)
    chain = None if source.description is None else chain_of(source.description)
    start_backend()
    from hepamap.exchange.identify import by_steps, identify, network_chain, pack_weights, patch_side, place
    from hepamap.networks import build_network

    named = identify(source, chain, request.backbone, request.head)
    patch_m = patch_side(source, chain, request.patch_m)
    check_network(named.backbone, named.head, patch_m)
    model = build_network(named.backbone, named.head, patch_m)
    placed = _with_tumour_last(place(source, model, chain), int(request.tumour_index or 0))
    own = chain or network_chain(model)
    patches = comparison_patches(patch_m)
    before = answers(own.computed, by_steps(own, placed, model), patches / 255.0)[:, 1]
    body = _body(request, source, NetworkSpec(backbone=named.backbone, head=named.head), patch_m)
    weights = pack_weights(placed)
    after = _answers_of_pack(body, weights, patches)
    return _prove_and_write(body, weights, (before, *after), folder, is_described=chain is not None)


def comparison_patches(side_m: int) -> NDArray[np.uint8]:
    """Patches with all that a network may react to: colours, edges, fine and coarse texture; always the same.

    Returns:
        (`PATCHES`, side, side, 3).
    """
    rng = np.random.default_rng(20210)
    patches = np.zeros((PATCHES, side_m, side_m, 3))
    for patch in patches:
        grain = int(rng.choice([1, 2, 4, 8]))
        coarse = rng.normal(0, 45, (side_m // grain, side_m // grain, 3))
        patch[:] = rng.uniform(60, 230, 3) + np.kron(coarse, np.ones((grain, grain, 1)))
    return np.clip(np.rint(patches), 0, 255).astype(np.uint8)


def _require_confirmed(request: ImportRequest) -> None:
    if request.tumour_index not in (0, 1):
        raise ImportUnconfirmedError(
            "No model file says which of its two outputs is tumour.",
            cure="Give --tumour-index 1, as in the authors' code, or 0.",
        )
    if request.scaling != "1/255":
        raise ImportUnconfirmedError(
            "No model file says how colours were scaled for it, and only RGB / 255 is served.",
            cure="Give --scaling 1/255 where the network was trained so; others have to be trained anew.",
        )


def _with_tumour_last(placed: dict[str, SourceLayer], tumour_index: int) -> dict[str, SourceLayer]:
    """The outputs in the order of a pack; index 1 is tumour."""
    last = placed["predictions"]
    if tumour_index == 1:
        return placed
    turned = {variable: np.ascontiguousarray(array[..., ::-1]) for variable, array in last.arrays.items()}
    return {**placed, "predictions": SourceLayer(last.name, last.kind, turned)}


def _prove_and_write(
    body: ManifestBody,
    weights: dict[str, NDArray[Any]],
    found: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    folder: Path,
    *,
    is_described: bool,
) -> Imported:
    before, after, served = found
    difference = float(np.abs(after - before).max())
    graph = "the file's own graph" if is_described else "the network that was named, as the file holds weights alone"
    report = {
        "compared": f"tumour probabilities of {len(before)} patches, before from {graph}, in NumPy; after by the pack; float64",
        "patches": len(before),
        "max_abs_difference": float(f"{difference:.3g}"),
        "max_abs_difference_in_float32": float(f"{np.abs(served - before).max():.3g}"),
        "lowest": round(float(before.min()), 6),
        "highest": round(float(before.max()), 6),
    }
    if not difference <= TOLERANCE:
        raise PredictionsDifferError(
            f"The imported network answers otherwise than the file's: up to {difference:.3g} on {len(before)} patches.",
            cure="Nothing was installed. Check --backbone and --head; save the whole model, whose graph can be compared.",
        )
    body = body.model_copy(update={"evaluation": {"import": report}})
    pack = write_pack(folder, body, weights, model_card(body, "imported"), dtype="float32")
    return Imported(pack, difference, report, _notes(before, is_described=is_described))


def _answers_of_pack(
    body: ManifestBody, weights: dict[str, NDArray[Any]], patches: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a pack answers that was written and read back: in float64, where rounding hides nothing, and as it is served."""
    from hepamap.networks import build_network, set_weights

    with tempfile.TemporaryDirectory(prefix="hepamap-import-") as staging:
        pack = write_pack(Path(staging) / body.id / body.version, body, weights, "", dtype="float32")
        stored = pack.read_weights()

    def answers_in(dtype: str) -> NDArray[np.float64]:
        with policy(dtype):
            model = build_network(body.network.backbone, body.network.head, body.input.patch)
        set_weights(model, stored)
        with interrupts_deferred():
            return np.asarray(model.predict_on_batch((patches / 255).astype(dtype)), np.float64)[:, 1]

    return answers_in("float64"), answers_in("float32")


def _notes(before: NDArray[np.float64], *, is_described: bool) -> tuple[str, ...]:
    notes: Sequence[str] = ()
    if before.max() - before.min() < _ALIKE:
        notes = (*notes, "The network answers all patches of the comparison alike: that both agree says little about it.")
    if not is_described:
        notes = (*notes, "The file holds weights alone: that the named network is the one they were trained in is your word.")
    return tuple(notes)


def _body(request: ImportRequest, source: SourceModel, network: NetworkSpec, patch_m: int) -> ManifestBody:
    training: dict[str, Any] = {
        "software": f"hepamap {__version__}",
        "origin": "imported",
        "file": request.file.name,
        "format": source.format,
        "written_by": source.written_by or "not stated",
        "confirmed": {"tumour_index_in_file": request.tumour_index, "scaling": request.scaling},
    }
    if request.file.is_file():
        training["file_sha256"] = _sha256(request.file)
    strides = sorted({patch_m // share for share in _STRIDE_SHARES} | {patch_m * 3 // 4})
    from pydantic import ValidationError

    try:
        return ManifestBody(
            id=request.id,
            version=request.version,
            title=request.title or f"Imported from {request.file.name}",
            network=network,
            input=InputSpec(mpp=request.mpp, patch=patch_m),
            strides=tuple(strides),
            default_stride=patch_m // 4,
            training=training,
            evaluation={},
            licence=request.licence,
            intended_use=INTENDED_USE["imported"],
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise NetworkMismatchError(
            f"{'.'.join(map(str, first['loc']))} cannot be {first['input']!r}: {first['msg']}.",
            cure="Use lower case letters and digits for --id, 1.0.0 for --version, and a resolution in µm/px for --mpp.",
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
