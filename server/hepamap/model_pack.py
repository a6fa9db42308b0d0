"""Model packs: a manifest and its weights on disk. No keras in here, and opening a pack never runs code.

A pack is a folder `<models>/<id>/<version>/` with `model.json` (the manifest), safetensors weights and `MODEL_CARD.md`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from hepamap.errors import ModelChangedError, ModelNotFoundError, OutputNotWritableError, PackDamagedError, PackInvalidError
from hepamap.folders import nearest_existing, put_in_place

DEFAULT_MODEL = "hcc-10x"
"""The pack that is used where nobody names one."""

MANIFEST_NAME = "model.json"
CARD_NAME = "MODEL_CARD.md"
WEIGHTS_NAME = "weights.safetensors"

Mode = Literal["patch", "dense", "segment"]
"""Ways to compute a map."""

_IDENTIFIER = r"^[a-z0-9][a-z0-9._-]*$"
_VERSION = r"^\d+\.\d+\.\d+$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkSpec(_Strict):
    """Which network of the registry the weights belong to."""

    kind: Literal["classification", "segmentation"] = Field(
        default="classification", description="Whether the network answers for a patch, or for every pixel of it."
    )
    backbone: str = Field(description="Name in the registry, e.g. VGG16DrV2; UNet or FCN8s for segmentation.")
    head: str = Field(description="Name in the registry of heads, e.g. GAP; PIXELS for segmentation.")


class InputSpec(_Strict):
    """What the network looks at."""

    mpp: float = Field(gt=0.05, le=100, description="Resolution, µm per pixel.")
    patch: int = Field(ge=32, le=2048, description="Patch side, pixels at that resolution.")
    scaling: Literal["1/255"] = Field(default="1/255", description="How RGB values 0-255 are scaled before the network.")


class OperatingPoint(_Strict):
    """A named threshold with what was measured at it."""

    name: str = Field(description="E.g. sensitive, balanced, specific.")
    threshold: float = Field(gt=0, lt=1, description="Tumour probability from which a cell counts as tumour.")
    sensitivity: float | None = Field(default=None, ge=0, le=1, description="Measured share of tumour found.")
    specificity: float | None = Field(default=None, ge=0, le=1, description="Measured share of non-tumour left alone.")


class Calibration(_Strict):
    """How far probabilities can be taken at their word; the map shows them as the network answers, not at the temperature."""

    temperature: float = Field(gt=0, description="By which logits would have to be divided; above 1 where answers are too sure.")
    expected_error: float = Field(ge=0, le=1, description="Expected calibration error of the probabilities as they are shown.")
    expected_error_at_temperature: float = Field(ge=0, le=1, description="The same at the temperature.")


class WeightsSpec(_Strict):
    """The file with the weights."""

    file: str = Field(pattern=r"^[A-Za-z0-9._-]+$", description="Name of the file in the pack's folder.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the file; another file is refused.")
    dtype: Literal["float16", "float32"] = Field(description="Type of the stored numbers.")


class ManifestBody(_Strict):
    """Everything a manifest says but where the weights are."""

    schema_version: Literal[1] = Field(default=1, description="Version of this schema.")
    id: str = Field(pattern=_IDENTIFIER, description="Name of the model, e.g. hcc-10x.")
    version: str = Field(pattern=_VERSION, description="Version, e.g. 1.0.0; a change of weights is a new version.")
    title: str = Field(description="One line for people.")
    network: NetworkSpec
    input: InputSpec
    classes: tuple[str, str] = Field(default=("non-tumour", "tumour"), description="Class order; index 1 is tumour.")
    strides: tuple[int, ...] = Field(min_length=1, description="Strides that may be asked for, model px.")
    default_stride: int = Field(description="Stride used unless another is asked for, model px.")
    modes: tuple[Mode, ...] = Field(default=("patch",), description="Ways to compute a map.")
    default_mode: Mode = Field(default="patch", description="Way used unless another is asked for.")
    default_threshold: float = Field(default=0.5, gt=0, lt=1, description="Threshold used unless another is asked for.")
    operating_points: tuple[OperatingPoint, ...] = Field(default=(), description="Named thresholds.")
    calibration: Calibration | None = Field(default=None, description="Measured by `hepamap evaluate`; null: not measured.")
    training: dict[str, Any] = Field(description="Data and recipe that the weights come from.")
    evaluation: dict[str, Any] = Field(description="What was measured, on what.")
    licence: str = Field(description="Licence of the weights.")
    intended_use: str = Field(description="What the model is for, and what it is not for.")

    @model_validator(mode="after")
    def _defaults_are_allowed(self) -> ManifestBody:
        if self.default_stride not in self.strides:
            raise ValueError("default_stride must be one of strides")
        if self.default_mode not in self.modes:
            raise ValueError("default_mode must be one of modes")
        if (self.network.kind == "segmentation") != (set(self.modes) == {"segment"}):
            raise ValueError("the mode segment belongs to segmentation networks, and they have no other")
        if any(stride < 1 or stride > self.input.patch for stride in self.strides):
            raise ValueError("a stride must be at least 1 and at most the patch side")
        return self


class PackManifest(ManifestBody):
    """`model.json`."""

    weights: WeightsSpec


@dataclass(frozen=True, slots=True)
class ModelPack:
    """A pack on disk, its manifest read; the weights are read and checked when asked for."""

    folder: Path
    manifest: PackManifest

    @property
    def name(self) -> str:
        """`id@version`."""
        return f"{self.manifest.id}@{self.manifest.version}"

    @property
    def computes(self) -> str:
        """A hash of what decides the probabilities: weights, network and input; defaults and texts may change without it."""
        manifest = self.manifest
        content = [manifest.weights.sha256, manifest.network.model_dump(), manifest.input.model_dump()]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def verify(self) -> None:
        """Check the weights against the manifest.

        Raises:
            PackDamagedError: the file is missing, or its hash differs.
        """
        self._verified_bytes()

    def read_weights(self) -> dict[str, NDArray[np.float32]]:
        """The weights as float32, verified; keys are `<layer>/<variable>`, e.g. `block1_conv1/kernel`.

        Raises:
            PackDamagedError: the file is missing, its hash differs, or it is no safetensors file.
        """
        try:
            tensors = load_tensors(self._verified_bytes())
        except SafetensorError as error:
            raise self._damaged(f"are no safetensors file ({error})") from error
        return {name: np.asarray(tensor, np.float32) for name, tensor in tensors.items()}

    def _verified_bytes(self) -> bytes:
        path = self.folder / self.manifest.weights.file
        try:
            data = path.read_bytes()
        except OSError as error:
            raise self._damaged("cannot be read") from error
        if hashlib.sha256(data).hexdigest() != self.manifest.weights.sha256:
            raise self._damaged("are not those that its manifest names (the sha256 differs)")
        return data

    def _damaged(self, what: str) -> PackDamagedError:
        return PackDamagedError(
            f"The weights of the model {self.name} {what}.",
            cure="Install the pack again from its source; do not use it as it is.",
        )


def load_pack(folder: Path) -> ModelPack:
    """Read the manifest of a pack.

    Raises:
        PackInvalidError: there is no manifest, or it breaks the schema.
    """
    try:
        manifest = PackManifest.model_validate_json((folder / MANIFEST_NAME).read_bytes())
    except OSError as error:
        raise PackInvalidError(
            f"The model pack {folder.name} has no readable {MANIFEST_NAME}.",
            cure="Install the pack again from its source.",
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise PackInvalidError(
            f"The manifest of the model pack {folder.parent.name}/{folder.name} is not valid: {where}: {first['msg']}.",
            cure=f"Mend {MANIFEST_NAME} by the schema in models/model.schema.json, or install the pack again.",
        ) from error
    return ModelPack(folder, manifest)


def list_packs(models_dir: Path, broken: list[PackInvalidError] | None = None) -> list[ModelPack]:
    """All packs under a folder, by id, newest version first; folders without a manifest are passed over.

    Args:
        models_dir: the folder.
        broken: takes what is wrong with packs whose manifests break the schema, and they are left out.

    Raises:
        PackInvalidError: a manifest breaks the schema, and nobody takes that.
    """
    packs = []
    for path in sorted(models_dir.glob(f"*/*/{MANIFEST_NAME}")):
        try:
            packs.append(load_pack(path.parent))
        except PackInvalidError as error:
            if broken is None:
                raise
            broken.append(error)
    packs.sort(key=_version_key, reverse=True)
    return sorted(packs, key=lambda pack: pack.manifest.id)


def find_pack(models_dir: Path, name: str) -> ModelPack:
    """Find a pack by `id` (its newest version) or `id@version`.

    Raises:
        ModelNotFoundError: there is none.
        PackInvalidError: its manifest breaks the schema, or may be the one that does.
    """
    identifier, _, version = name.partition("@")
    folders = {path.parent for path in models_dir.glob(f"*/*/{MANIFEST_NAME}") if path.parent.parent.name == identifier}
    broken: PackInvalidError | None = None
    packs = []
    for folder in sorted(folders):
        try:
            packs.append(load_pack(folder))
        except PackInvalidError as error:
            broken = error
    # One that is broken may be the newest version; it is none of those that can be read.
    if broken is not None and not any(pack.manifest.version == version for pack in packs):
        raise broken
    for pack in sorted(packs, key=_version_key, reverse=True):
        if not version or pack.manifest.version == version:
            return pack
    installed = sorted({path.parent.parent.name for path in models_dir.glob(f"*/*/{MANIFEST_NAME}")})
    raise ModelNotFoundError(
        f"There is no model {name!r} here.",
        cure=f"Use one of: {', '.join(installed)}." if installed else "Install a model pack into the models folder.",
    )


def require_writable(folder: Path) -> None:
    """Check that a pack could be written into a folder, or changed there, before hours go into what it is to hold.

    Args:
        folder: `<models>/<id>/<version>`; neither it nor those above it need be there.

    Raises:
        OutputNotWritableError: it could not.
    """
    try:
        Path(tempfile.mkdtemp(prefix=".probe-", dir=nearest_existing(folder))).rmdir()
    except OSError as error:
        raise not_writable(folder, error) from error


def not_writable(folder: Path, error: OSError) -> OutputNotWritableError:
    """What to say where a pack's folder refuses."""
    return OutputNotWritableError(
        f"The model pack {folder.parent.name}/{folder.name} cannot be written ({error.strerror}).",
        cure="Check permissions and free space of the models folder, or name another with --models-dir. A training that had "
        "ended is not lost: give its command again, with --resume.",
    )


def write_pack(
    folder: Path,
    body: ManifestBody,
    weights: Mapping[str, NDArray[np.floating[Any]]],
    card: str,
    *,
    dtype: Literal["float16", "float32"] = "float16",
) -> ModelPack:
    """Write a pack, whole or not at all; replaces what is in the folder.

    Args:
        folder: `<models>/<id>/<version>`.
        body: the manifest without its weights.
        weights: `<layer>/<variable>` to array.
        card: text of `MODEL_CARD.md`.
        dtype: type to store the numbers in.

    Raises:
        OutputNotWritableError: no permission, or the disk is full.
    """
    data = save_tensors({name: np.ascontiguousarray(value, dtype=dtype) for name, value in weights.items()})
    spec = WeightsSpec(file=WEIGHTS_NAME, sha256=hashlib.sha256(data).hexdigest(), dtype=dtype)
    manifest = PackManifest.model_validate({**body.model_dump(mode="json"), "weights": spec.model_dump()})
    try:
        _write_folder(folder, {WEIGHTS_NAME: data, MANIFEST_NAME: manifest_json(manifest).encode(), CARD_NAME: card.encode()})
    except OSError as error:
        raise not_writable(folder, error) from error
    return load_pack(folder)


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=folder.parent))
    try:
        staging.chmod(0o755)
        for name, content in files.items():
            (staging / name).write_bytes(content)
        put_in_place(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def reloaded(pack: ModelPack) -> ModelPack:
    """The pack as it stands on the disk now: others may have written into its manifest since it was loaded.

    Raises:
        ModelChangedError: it has other weights by now.
    """
    now = load_pack(pack.folder)
    if now.computes != pack.computes:
        raise ModelChangedError(
            f"The model {pack.name} is not the one that was measured: the pack was replaced since.",
            cure="Measure again. Whoever changes weights should give the pack a new version.",
        )
    return now


def rewrite_manifest(pack: ModelPack, **changes: Any) -> ModelPack:
    """Change fields of a pack's manifest, whole or not at all; the weights, and all other fields, stay as they are on the disk.

    Raises:
        PackInvalidError: the manifest would break the schema.
        ModelChangedError: the pack on the disk has other weights.
        OutputNotWritableError: no permission, or the disk is full.
    """
    try:
        manifest = PackManifest.model_validate({**reloaded(pack).manifest.model_dump(mode="json"), **changes})
    except ValidationError as error:
        raise PackInvalidError(
            f"The manifest of {pack.name} cannot be changed: {error.errors()[0]['msg']}.",
            cure="Check the pack's modes and strides.",
        ) from error
    replace_text(pack.folder / MANIFEST_NAME, manifest_json(manifest))
    return ModelPack(pack.folder, manifest)


def replace_text(path: Path, text: str) -> None:
    """Replace a file of a pack, whole or not at all.

    Raises:
        OutputNotWritableError: no permission, or the disk is full.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise not_writable(path.parent, error) from error


def manifest_json(manifest: PackManifest) -> str:
    """The text of `model.json`."""
    return json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def manifest_schema_json() -> str:
    """The JSON schema of `model.json`, as published in models/model.schema.json."""
    return json.dumps(PackManifest.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def _version_key(pack: ModelPack) -> tuple[int, ...]:
    return tuple(int(part) for part in pack.manifest.version.split("."))
