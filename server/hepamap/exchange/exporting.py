"""From a pack to a Keras file that other programs open."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hepamap.errors import OutputNotWritableError, ParameterError
from hepamap.exchange.errors import ModelExistsError
from hepamap.model_pack import ModelPack
from hepamap.predictor import start_backend


def export_model(pack: ModelPack, file: Path, *, overwrite: bool = False) -> None:
    """Write a pack's network with its weights as a `.keras` file, whole or not at all.

    Input float RGB / 255 (N, P, P, 3), output softmax (N, 2), index 1 tumour, as in the pack.

    Raises:
        ParameterError: the name does not end in .keras.
        ModelExistsError: there is such a file, and not `overwrite`.
        OutputNotWritableError: the folder cannot be written.
        PackDamagedError: the weights are not those of the manifest.
    """
    if file.suffix != ".keras":
        raise ParameterError(
            f"{file.name} does not end in .keras.", cure="Name the file so: it is the only format that is written."
        )
    if file.exists() and not overwrite:
        raise ModelExistsError(f"There is a file {file.name} already.", cure="Give another name, or --overwrite.")
    weights = pack.read_weights()
    start_backend()
    from hepamap.networks import build_network, set_weights

    spec = pack.manifest
    model = build_network(spec.network.backbone, spec.network.head, spec.input.patch)
    set_weights(model, weights)
    try:
        with tempfile.TemporaryDirectory(prefix=".export-", dir=file.parent) as staging:
            whole = Path(staging) / "model.keras"
            model.save(whole)
            os.replace(whole, file)
    except OSError as error:
        raise OutputNotWritableError(
            f"{file.name} cannot be written: {error.strerror}.", cure="Choose a folder that you may write to, with space left."
        ) from error
