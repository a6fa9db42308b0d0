"""TIAToolbox and WSInfer on the patches that hepamap looks at, with the same network: the second half of `make bench-peers`.

    python -P peers.py SLIDE --answers answers.npz --bench hepamap.json --environments .venv-peers

`answers.npz` is by `python -m hepamap.benchmark.patch_answers`, `hepamap.json` by `hepamap bench --json`. Each peer has a Python
of its own, `<environments>/<peer>/bin/python`, in which this very file is run again with `--only`; so it imports nothing of
hepamap, and nothing but the standard library before it knows which peer it is. A peer that cannot be installed, that fails or
that gives other answers than hepamap is named in the table with the reason, and the others go on.
"""

# The peers are not installed where this file is checked.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

TOLERANCE = 1e-3
"""By what share of it a probability may differ from hepamap's on the same pixels: other libraries, other order of sums."""
_LEAST = 1e-12
_CONVOLUTIONS = (2, 2, 3, 3, 3)
_TUMOUR = 1


Own = Mapping[tuple[int, ...], float]
"""Probabilities by corner (x, y) of the patch, model px."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a peer lets its users choose."""

    batch: int
    """Patches that its network gets at once."""
    readers: int
    """Processes that read patches; 0: the one that computes reads, too."""

    @classmethod
    def parse(cls, text: str) -> Setting:
        """From `8x0`: batches of 8, no readers.

        Raises:
            argparse.ArgumentTypeError: it is no such text.
        """
        found = re.fullmatch(r"([1-9]\d*)x(\d+)", text)
        if not found:
            raise argparse.ArgumentTypeError(f"{text!r} is none; give <batch>x<readers>, such as 8x0")
        return cls(int(found[1]), int(found[2]))


@dataclass(frozen=True, slots=True)
class PeerReport:
    """What was seen of one peer under one setting."""

    program: str
    setting: str = ""
    patches: int = 0
    seconds: float = 0.0
    """Wall time of the whole run on the slide, model loaded."""
    same_pixels: float = 0.0
    """Largest difference of its probabilities from hepamap's, as a share of them, on pixels that hepamap read."""
    own_pixels: float | None = None
    """Median difference on the same patches, read by the peer itself: its resampling is another one."""
    failed: str | None = None
    """Why there are no numbers."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A peer with the network loaded and warmed up."""

    same: Any
    """(K,) its probabilities on hepamap's pixels."""
    run: Callable[[Setting, Path], Callable[[], Own]]
    """Computes the whole slide with an empty folder to write to, and returns what reads the result; only the first is timed."""


def network(weights_path: str) -> Any:
    """VGG16DrV2 with GAP in torch: RGB (N, 3, P, P), 0 to 1, to logits (N, 2). Dropout does nothing outside of training."""
    import torch
    from safetensors.numpy import load_file
    from torch import nn

    weights = load_file(weights_path)

    def fill(layer: Any, name: str, *axes: int) -> Any:
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weights[f"{name}/kernel"].astype("float32").transpose(axes)))
            layer.bias.copy_(torch.from_numpy(weights[f"{name}/bias"].astype("float32")))
        return layer

    layers: list[Any] = []
    for block, convolutions in enumerate(_CONVOLUTIONS, start=1):
        for number in range(1, convolutions + 1):
            name = f"block{block}_conv{number}"
            _, _, incoming, outgoing = weights[f"{name}/kernel"].shape
            layers += [fill(nn.Conv2d(incoming, outgoing, 3, padding=1), name, 3, 2, 0, 1), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    dense = fill(nn.Linear(*weights["predictions/kernel"].shape), "predictions", 1, 0)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), dense).eval()


def tissue_mask(answers: Mapping[str, Any]) -> Any:
    """The cells with tissue as an image of the whole slide, uint8 (rows, columns), one pixel per stride."""
    import numpy as np

    stride, patch = int(answers["stride"]), int(answers["patch"])
    columns, rows = np.ceil(answers["size_l0"] / answers["scale"] / stride).astype(int)
    x, y = (answers["corners_m"] + patch // 2).T // stride
    inside = (x >= 0) & (y >= 0) & (x < columns) & (y < rows)
    mask = np.zeros((rows, columns), np.uint8)
    mask[y[inside], x[inside]] = 1
    return mask


def tiatoolbox(slide: Path, answers: Mapping[str, Any], folder: Path) -> Loaded:
    """PatchPredictor with the network as a model of its own, on the tissue as a mask."""
    import numpy as np
    import torch
    import zarr
    from tiatoolbox.models.engine.io_config import IOPatchPredictorConfig
    from tiatoolbox.models.engine.patch_predictor import PatchPredictor
    from tiatoolbox.models.models_abc import ModelABC

    class Network(ModelABC):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network(str(answers["weights"]))

        def forward(self, images: Any) -> Any:
            return torch.softmax(self.network(images), 1)

        @staticmethod
        def infer_batch(model: Any, batch_data: Any, *, device: str) -> Any:
            with torch.inference_mode():
                return model(batch_data.to(device).permute(0, 3, 1, 2).float() / 255).cpu().numpy()

    patch, stride = int(answers["patch"]), int(answers["stride"])
    config = IOPatchPredictorConfig(
        input_resolutions=[{"units": "mpp", "resolution": float(answers["mpp"])}],
        patch_input_shape=[patch, patch],
        stride_shape=[stride, stride],
    )
    predictor = PatchPredictor(model=Network(), device="cpu", verbose=False)
    same = predictor.run(answers["pixels"], patch_mode=True, ioconfig=config, return_probabilities=True)["probabilities"]

    def run(setting: Setting, out: Path) -> Callable[[], Own]:
        written = predictor.run(
            [slide],
            masks=[tissue_mask(answers)],
            patch_mode=False,
            ioconfig=config,
            auto_get_mask=False,
            return_probabilities=True,
            batch_size=setting.batch,
            num_workers=setting.readers,
            save_dir=out / "result",
            output_type="zarr",
        )
        return lambda: read(next(iter(written.values())))

    def read(path: Path) -> Own:
        result = zarr.open(path, mode="r")
        corners = map(tuple, np.asarray(result["coordinates"])[:, :2].tolist())
        return dict(zip(corners, np.asarray(result["probabilities"])[:, _TUMOUR].tolist(), strict=True))

    return Loaded(np.asarray(same)[:, _TUMOUR], run)


def wsinfer(slide: Path, answers: Mapping[str, Any], folder: Path) -> Loaded:
    """`run_inference` on a TorchScript model; the patches come from hepamap, not from its own search for tissue."""
    import numpy as np
    import torch
    from PIL import Image
    from wsinfer.modellib import run_inference as inference
    from wsinfer.modellib.models import LocalModelTorchScript
    from wsinfer.modellib.transforms import make_compose_from_transform_config
    from wsinfer.patchlib import save_hdf5
    from wsinfer_zoo.client import ModelConfiguration

    config = ModelConfiguration.from_dict(_wsinfer_config(int(answers["patch"]), float(answers["mpp"])))
    torch.jit.script(network(str(answers["weights"]))).save(folder / "model.pt")
    model = LocalModelTorchScript(config=config, model_path=str(folder / "model.pt"))
    loaded = inference.get_pretrained_torch_module(model)
    transform = make_compose_from_transform_config(config.transform)
    images = torch.stack([transform(Image.fromarray(pixels)) for pixels in answers["pixels"]])
    with torch.no_grad():
        for _ in range(3):  # TorchScript compiles at the second call
            same = torch.softmax(loaded(images), 1)[:, _TUMOUR].numpy()
    slides = folder / "slides"
    slides.mkdir()
    for part in (slide, slide.with_suffix("")):  # MRXS is a file and a folder beside it
        if part.exists():
            (slides / part.name).symlink_to(part.resolve())

    def run(setting: Setting, out: Path) -> Callable[[], Own]:
        (out / "patches").mkdir()
        corners_l0 = np.round(answers["corners_m"] * answers["scale"]).astype(np.int64)
        side_l0 = round(config.patch_size_pixels * float(np.mean(answers["scale"])))
        save_hdf5(out / "patches" / f"{slide.stem}.h5", corners_l0, side_l0, config.spacing_um_px)
        with mock.patch.object(inference, "get_pretrained_torch_module", return_value=loaded):
            inference.run_inference(slides, out, model, setting.batch, setting.readers)
        return lambda: read(out / "model-outputs-csv" / f"{slide.stem}.csv")

    def read(path: Path) -> Own:
        with path.open(newline="") as file:
            probabilities = [float(row["prob_tumour"]) for row in csv.DictReader(file)]
        return dict(zip(map(tuple, answers["corners_m"].tolist()), probabilities, strict=True))

    return Loaded(same, run)


def _wsinfer_config(patch: int, mpp: float) -> dict[str, Any]:
    return {
        "spec_version": "1.0",
        "architecture": "vgg16",
        "num_classes": 2,
        "class_names": ["other", "tumour"],
        "patch_size_pixels": patch,
        "spacing_um_px": mpp,
        "transform": [{"name": "Resize", "arguments": {"size": patch}}, {"name": "ToTensor"}],
    }


PEERS: Mapping[str, Callable[[Path, Mapping[str, Any], Path], Loaded]] = {"tiatoolbox": tiatoolbox, "wsinfer": wsinfer}


def apart(same: Any, expected: Any) -> float:
    """Largest difference of the probabilities on the same pixels, as a share of hepamap's.

    As a share, because on much tissue most are next to nothing, and next to nothing is what another network may answer, too.

    Raises:
        ValueError: it is no rounding: the network is not the same.
    """
    import numpy as np

    difference = float((np.abs(same - expected) / np.maximum(expected, _LEAST)).max())
    if not difference <= TOLERANCE:  # so that a NaN is one, too
        raise ValueError(f"on the same pixels its probabilities differ from hepamap's by {100 * difference:.2g} %")
    return difference


def own_apart(own: Own, answers: Mapping[str, Any]) -> float | None:
    """Median difference of the probabilities of the sample, None where the peer did not look at any of it."""
    import numpy as np

    corners = map(tuple, answers["corners_m"][answers["sample"]].tolist())
    pairs = zip(corners, answers["probabilities"].tolist(), strict=True)
    differences = [abs(own[corner] - value) for corner, value in pairs if corner in own]
    return float(np.median(differences)) if differences else None


def measure(name: str, slide: Path, answers: Mapping[str, Any], settings: Sequence[Setting], threads: int) -> list[PeerReport]:
    """Run one peer, here and now, under each setting; what goes wrong in it is the report."""
    reports: list[PeerReport] = []
    try:
        import torch

        torch.set_num_threads(threads)
        program = f"{name} {importlib.metadata.version(name)}"
        with TemporaryDirectory() as root:
            peer = PEERS[name](slide, answers, Path(root))
            same = apart(peer.same, answers["probabilities"])
            for number, setting in enumerate(settings):
                out = Path(root) / f"run-{number}"
                out.mkdir()
                started = time.perf_counter()
                read = peer.run(setting, out)
                seconds = time.perf_counter() - started
                own = read()
                told = f"{setting.batch} / {setting.readers}"
                reports.append(PeerReport(program, told, len(own), seconds, same, own_apart(own, answers)))
    except Exception as error:  # other people's programs: anything
        reports.append(PeerReport(name, failed=f"{type(error).__name__}: {error}"))
    return reports


def measure_apart(name: str, python: Path, arguments: Sequence[str]) -> list[PeerReport]:
    """Run one peer in its own environment and process, so that nothing that happens to it happens to the rest."""
    if not python.is_file():
        return [PeerReport(name, failed=f"not installed: there is no {python}")]
    with TemporaryDirectory() as folder:
        out = Path(folder) / "reports.json"
        command = [str(python), "-P", __file__, *arguments, "--only", name, "--out", str(out)]
        # Both make folders in the user's home as soon as they are imported.
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HOME": folder}
        status = subprocess.run(command, check=False, stdout=sys.stderr, env=environment).returncode
        if not out.is_file():
            return [PeerReport(name, failed=f"its process ended with {status}")]
        return [PeerReport(**report) for report in json.loads(out.read_text(encoding="utf-8"))]


def table(bench: Mapping[str, Any], reports: Sequence[PeerReport]) -> str:
    """Hepamap and its peers in Markdown, with how many times as many patches a second dense hepamap does."""
    lines = [
        "| program | batch / readers | patches | s | patches/s | dense hepamap over it | same pixels, largest share apart "
        "| own pixels, median apart |",
        "|---|---|---|---|---|---|---|---|",
    ]
    modes = {mode["name"]: mode for mode in bench["modes"]}
    dense = modes["dense"]["patches"] / modes["dense"]["seconds"]

    def line(program: str, setting: str, patches: int, seconds: float, same: str, own: str) -> None:
        rate = patches / seconds
        lines.append(f"| {program} | {setting} | {patches} | {seconds:.1f} | {rate:.1f} | {dense / rate:.2f} | {same} | {own} |")

    for name in ("dense", "patch"):
        line(f"hepamap, {name}", "", modes[name]["patches"], modes[name]["seconds"], "", "")
    for report in reports:
        if report.failed is not None:
            reason = " ".join(report.failed.split()).replace("|", "\\|")
            lines.append(f"| {report.program} | not measured: {reason} | | | | | | |")
        else:
            own = "" if report.own_pixels is None else f"{report.own_pixels:.1e}"
            line(report.program, report.setting, report.patches, report.seconds, f"{report.same_pixels:.1e}", own)
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or with `--only` write the reports of one peer; returns the exit status: 1 where no peer was measured."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if bool(given.only) != bool(given.out) or bool(given.only) == bool(given.bench):
        parser.error("give either --bench, or --only and --out")
    if given.only:
        import numpy as np

        reports = measure(given.only, given.slide, np.load(given.answers), given.setting, given.threads)
        given.out.write_text(json.dumps([asdict(report) for report in reports]), encoding="utf-8")
        return 0
    bench = json.loads(given.bench.read_text(encoding="utf-8"))
    again = [str(given.slide), "--answers", str(given.answers), "--threads", str(given.threads)]
    again += ["--setting", *(f"{setting.batch}x{setting.readers}" for setting in given.setting)]
    reports = [report for name in PEERS for report in measure_apart(name, given.environments / name / "bin" / "python", again)]
    sys.stdout.write(f"{bench['model']} on {bench['slide']['name']}: whole runs, model loaded, CPU, {given.threads} threads.\n\n")
    sys.stdout.write(table(bench, reports))
    return 0 if any(report.failed is None for report in reports) else 1


def _existing(text: str) -> Path:
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"there is no {text}")
    return path


def _parser() -> argparse.ArgumentParser:
    cpus = os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=_existing)
    parser.add_argument("--answers", type=_existing, required=True, help="written by hepamap.benchmark.patch_answers")
    parser.add_argument("--bench", type=_existing, help="written by hepamap bench --json")
    parser.add_argument(
        "--environments", type=Path, default=Path(".venv-peers"), help="folder with one environment for each peer"
    )
    parser.add_argument("--threads", type=int, default=cpus, help="of the network")
    # Each peer's own defaults, TIAToolbox's and WSInfer's, tried on both.
    defaults = (Setting(8, 0), Setting(32, min(cpus, 8)))
    parser.add_argument(
        "--setting", type=Setting.parse, nargs="+", default=defaults, help="<batch>x<readers>, any number of them"
    )
    parser.add_argument("--only", choices=PEERS, help="measure this peer in this very process")
    parser.add_argument("--out", type=Path, help="with --only: where to write its reports")
    return parser


if __name__ == "__main__":
    sys.exit(main())
