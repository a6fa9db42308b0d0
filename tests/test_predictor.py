import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hepamap.errors import PackInvalidError, PredictionInvalidError
from hepamap.model_pack import ModelPack, find_pack, write_pack
from hepamap.predictor import Predictor
from tests.packs import manifest_body, write_network_pack


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> ModelPack:
    return write_network_pack(tmp_path_factory.mktemp("models"), "random-5x")


@pytest.fixture(scope="module")
def predictor(pack: ModelPack) -> Predictor:
    return Predictor.load(pack)


def patches(count: int) -> Any:
    return np.random.default_rng(2).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def test_a_patch_is_seen_alone(predictor: Predictor) -> None:
    some = patches(5)
    together = predictor.predict(some)
    alone = np.concatenate([predictor.predict(some[i : i + 1]) for i in range(5)])
    assert together.shape == (5,)
    assert np.array_equal(together, alone)
    assert len(np.unique(together)) == 5


def test_more_than_a_batch_and_none(predictor: Predictor) -> None:
    some = patches(3)
    many = np.concatenate([some] * (predictor.batch_size // 3 + 2))
    assert np.array_equal(predictor.predict(many), np.resize(predictor.predict(some), len(many)))
    assert predictor.predict(patches(0)).shape == (0,)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_a_lane_ends_with_what_was_fed(device: str, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU the last strip is no higher than that, in whole units; a GPU has graphs of one height only."""
    monkeypatch.setattr("hepamap.predictor.predictor._STRIP_ROWS_M", {"cpu": (64, 64), "gpu": (64, 64)})
    other = Predictor(predictor.model, 64, device=device)
    lane = other.open_lane(29)
    pixels = np.random.default_rng(2).integers(0, 256, (64 + 40, lane.width_m, 3), np.uint8)
    white = np.full((24, lane.width_m, 3), 255, np.uint8)
    answers = np.concatenate([lane.feed(pixels), lane.finish()])
    assert len(answers) == (4 + 3 if device == "cpu" else 4 + 4)
    assert {rows for _, rows in other._strips} == ({None} if device == "cpu" else {64})
    expected = predictor.open_lane(29).feed(np.concatenate([pixels, white]))
    assert len(expected) == 8
    assert answers == pytest.approx(expected[: len(answers)], abs=1e-5)


def test_equals_the_network_written_out(pack: ModelPack, predictor: Predictor) -> None:
    """A slow, obvious forward pass in numpy: convolutions, ReLU, pooling, mean, dense, softmax (paper, table of networks)."""
    weights = pack.read_weights()
    (patch,) = patches(1)
    x = patch.astype(np.float64) / 255
    for block, convolutions in enumerate((2, 2, 3, 3, 3), start=1):
        for number in range(1, convolutions + 1):
            kernel, bias = (weights[f"block{block}_conv{number}/{part}"] for part in ("kernel", "bias"))
            padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
            x = np.maximum(np.einsum("hwcij,ijco->hwo", windows, kernel, optimize=True) + bias, 0)
        height, width, channels = x.shape
        x = x.reshape(height // 2, 2, width // 2, 2, channels).max(axis=(1, 3))
    kernel = next(value for name, value in weights.items() if value.shape == (512, 2))
    logits = x.mean(axis=(0, 1)) @ kernel
    tumour = np.exp(logits[1]) / np.exp(logits).sum()
    assert predictor.predict(patch[None])[0] == pytest.approx(tumour, abs=1e-4)


def test_class_1_is_tumour(tmp_path: Path) -> None:
    answer = Predictor.load(write_network_pack(tmp_path, "constant", bias=(0.0, 2.0))).predict(patches(2))
    assert answer == pytest.approx(np.exp(2) / (1 + np.exp(2)), abs=1e-3)


def test_weights_of_another_network_are_refused(tmp_path: Path, pack: ModelPack) -> None:
    weights = dict(pack.read_weights())
    weights["block1_conv1/kernel"] = np.zeros((3, 3, 3, 32), np.float32)
    wrong = write_pack(tmp_path / "wrong" / "1.0.0", manifest_body("wrong"), weights, "")
    with pytest.raises(PackInvalidError, match="block1_conv1/kernel"):
        Predictor.load(wrong)
    del weights["block1_conv1/kernel"]
    with pytest.raises(PackInvalidError, match="block1_conv1/kernel"):
        Predictor.load(write_pack(tmp_path / "less" / "1.0.0", manifest_body("less"), weights, ""))


@pytest.mark.parametrize("answer", [np.full((64, 2), np.nan), np.full((64, 2), 1.5), np.zeros((64, 1)), np.zeros((3, 2))])
def test_an_answer_that_is_no_probability_is_refused(answer: Any) -> None:
    class Broken:
        def predict_on_batch(self, _: Any) -> Any:
            return answer

    with pytest.raises(PredictionInvalidError):
        Predictor(Broken(), 64).predict(patches(1))


def test_ctrl_c_waits_for_the_answer_of_its_batch() -> None:
    """Between two instructions within a network it ended in a segmentation fault."""
    answered = []

    class Interrupted:
        def predict_on_batch(self, batch: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            answered.append(len(batch))
            return np.tile(np.array([1, 0], np.float32), (len(batch), 1))

    predictor = Predictor(Interrupted(), 64)
    with pytest.raises(KeyboardInterrupt):
        predictor.predict(patches(predictor.batch_size + 1))
    assert answered == [predictor.batch_size]  # and no second batch


def test_loading_says_nothing(pack: ModelPack) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from hepamap.model_pack import find_pack; "
        "from hepamap.predictor import Predictor; "
        "Predictor.load(find_pack(Path(sys.argv[1]), 'random-5x'))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(pack.folder.parents[1])], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
    assert find_pack(pack.folder.parents[1], "random-5x").name == "random-5x@1.0.0"
