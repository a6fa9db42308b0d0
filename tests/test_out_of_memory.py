"""A network whose device has little memory: smaller pieces, then the CPU, and the same answers."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hepamap.errors import OutOfMemoryError
from hepamap.predictor import Predictor, backend
from hepamap.predictor.backend import dtype_policy, has_unused_gpu, is_card_unusable, is_out_of_memory
from tests.networks.test_dense import random_network

pytestmark = pytest.mark.usefixtures("thin_networks")


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's."""


class Small:
    """A network that refuses more than some pixels at once, as a full card does."""

    def __init__(self, model: Any, most_pixels: int) -> None:
        self._model = model
        self._most_pixels = most_pixels
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict_on_batch(self, batch: NDArray[np.float32]) -> Any:
        pixels = batch.shape[0] * batch.shape[1] * batch.shape[2]
        self.sizes.append(len(batch))
        if pixels > self._most_pixels:
            raise ResourceExhaustedError("OOM when allocating tensor")
        return self._model.predict_on_batch(batch)


@pytest.fixture(scope="module")
def model() -> Any:
    return random_network()


def patches(count: int) -> Any:
    return np.random.default_rng(3).integers(0, 256, (count, 64, 64, 3), np.uint8)


def test_batches_are_halved_until_they_fit(model: Any) -> None:
    small = Small(model, 20 * 64 * 64)
    predictor = Predictor(small, 64)
    answer = predictor.predict(patches(40))
    assert small.sizes == [64, 32, 16, 16, 16]
    assert answer == pytest.approx(Predictor(model, 64).predict(patches(40)), abs=1e-6)
    assert predictor.batch_size == 16
    assert predictor.warnings == []  # slower, but nothing that a user must know


def test_strips_are_halved_in_the_middle_of_a_lane(model: Any) -> None:
    plain, tight = Predictor(model, 64), Predictor(model, 64)
    lane, other = plain.open_lane(29), tight.open_lane(29)
    rows_m = lane.rows_m
    pixels = np.random.default_rng(4).integers(0, 256, (4 * rows_m, lane.width_m, 3), np.uint8)
    expected = lane.feed(pixels)
    first = other.feed(pixels[:rows_m])
    tight._shrink(MemoryError())
    assert other.rows_m == rows_m // 2
    assert np.concatenate([first, other.feed(pixels[rows_m:])]) == pytest.approx(expected, abs=1e-5)


def test_a_gpu_without_room_for_one_patch_gives_way_to_the_cpu(model: Any) -> None:
    predictor = Predictor(Small(model, 0), 64, device="gpu", policy="mixed_float16")
    predictor._rebuild = lambda policy: model
    answer = predictor.predict(patches(3))
    assert answer == pytest.approx(Predictor(model, 64).predict(patches(3)), abs=1e-6)
    assert (predictor.device, predictor.policy) == ("cpu", "float32")
    assert [code for code, _ in predictor.warnings] == ["gpu_memory"]


@pytest.mark.parametrize("carried", [np.float32, np.float16])
def test_a_lane_that_began_on_a_gpu_ends_on_the_cpu(model: Any, carried: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card's strips are not cut into segments, and what they hand on may be in 16 bits."""
    monkeypatch.setattr("hepamap.predictor.predictor._STRIP_ROWS_M", {"cpu": (64, 256), "gpu": (64, 128)})
    plain, moved = Predictor(model, 64), Predictor(model, 64, device="gpu")
    moved._rebuild = lambda policy: model
    lane, other = plain.open_lane(29), moved.open_lane(29)
    pixels = np.random.default_rng(4).integers(0, 256, (512, lane.width_m, 3), np.uint8)
    expected = lane.feed(pixels)
    first = other.feed(pixels[:128])
    other._carries = [np.asarray(carry).astype(carried) for carry in other._carries]
    moved._move_to_cpu(moved._rebuild, MemoryError())
    answers = np.concatenate([first, other.feed(pixels[128:])])
    assert moved.device == "cpu"
    assert answers.std() > 0.1
    assert len(answers) == 24  # the rest waits for more rows
    assert answers == pytest.approx(expected[:24], abs=1e-4 if carried is np.float32 else 0.02)


@pytest.mark.parametrize("words", ["No algorithm worked! CUDNN_STATUS_ALLOC_FAILED", "DNN library initialization failed."])
def test_a_card_that_has_no_room_for_the_weights_gives_way(words: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hepamap import networks
    from tests.packs import write_network_pack

    built = []

    def build(*network: Any) -> Any:
        built.append(network)
        if len(built) == 1:
            raise RuntimeError(words)
        return real(*network)

    pack = write_network_pack(tmp_path, "random-5x")
    plain = Predictor.load(pack)
    real = networks.build_network
    monkeypatch.setattr(networks, "build_network", build)
    monkeypatch.setattr(backend, "device_kind", lambda: "gpu")
    predictor = Predictor.load(pack, "float32")
    assert (predictor.device, predictor.gave_way) == ("cpu", True)
    assert [code for code, _ in predictor.warnings] == ["gpu_memory" if "ALLOC" in words else "gpu_failed"]
    assert np.array_equal(predictor.predict(patches(2)), plain.predict(patches(2)))


def test_a_card_whose_libraries_fail_in_a_run_gives_way_at_once(model: Any) -> None:
    class Broken(Small):
        def predict_on_batch(self, batch: NDArray[np.float32]) -> Any:
            self.sizes.append(len(batch))
            raise RuntimeError("FAILED_PRECONDITION: DNN library initialization failed")

    broken = Broken(model, 0)
    predictor = Predictor(broken, 64, device="gpu", policy="mixed_float16")
    predictor._rebuild = lambda policy: model
    assert len(predictor.predict(patches(3))) == 3
    assert len(broken.sizes) == 1  # smaller batches would not help
    assert [code for code, _ in predictor.warnings] == ["gpu_failed"]


def test_weights_that_do_not_fit_are_told(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hepamap import networks
    from tests.packs import write_network_pack

    def build(*network: Any) -> Any:
        raise MemoryError

    pack = write_network_pack(tmp_path, "random-5x")
    monkeypatch.setattr(networks, "build_network", build)
    with pytest.raises(OutOfMemoryError, match="does not suffice"):
        Predictor.load(pack)


def test_a_cpu_without_room_says_so(model: Any) -> None:
    with pytest.raises(OutOfMemoryError, match="single patch"):
        Predictor(Small(model, 0), 64).predict(patches(1))


@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory. Tried to allocate 2 GiB",
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate",
        "NOT_FOUND: No algorithm worked! Error messages: Profiling failure: CUDNN_STATUS_ALLOC_FAILED",
        "failed to create cublas handle: CUBLAS_STATUS_ALLOC_FAILED",
        "cudaErrorMemoryAllocation: out of memory",
        "Failed call to cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY",
        "Failed to allocate 308281344 bytes",
    ],
)
def test_lack_of_memory_has_many_names(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words))


def test_other_failures_are_not_taken_for_it() -> None:
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ValueError("shapes do not match"))
    assert not is_card_unusable(ValueError("shapes do not match"))
    assert is_card_unusable(RuntimeError("UNIMPLEMENTED: DNN library is not found."))


@pytest.mark.parametrize(
    ("visible", "device", "unused"),
    [(None, "cpu", True), ("1", "cpu", True), ("", "cpu", False), ("-1", "cpu", False), (None, "gpu", False)],
)
def test_a_card_that_is_not_used(visible: str | None, device: str, unused: bool, tmp_path: Any, monkeypatch: Any) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    (tmp_path / "nvidiactl").touch()
    assert not has_unused_gpu(device, tmp_path)
    (tmp_path / "nvidia1").touch()  # a container may be given the second card only
    assert has_unused_gpu(device, tmp_path) == unused


def test_torch_has_no_list_of_devices_in_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    cuda = SimpleNamespace(device_count=lambda: 0)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(keras.config, "backend", lambda: "torch")
    monkeypatch.setattr(keras.distribution, "list_devices", None)
    assert backend.device_kind() == "cpu"
    cuda.device_count = lambda: 2
    assert backend.device_kind() == "gpu"


@pytest.mark.parametrize("fast", [True, False])
def test_precision_by_device(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "has_fast_bfloat16", lambda: fast)
    assert dtype_policy("auto", "cpu") == "float32"
    assert dtype_policy("auto", "gpu") == "mixed_float16"
    assert dtype_policy("mixed", "gpu") == "mixed_float16"
    assert dtype_policy("float32", "gpu") == "float32"
    assert dtype_policy("mixed", "cpu") == ("mixed_bfloat16" if fast else "float32")


def test_a_cpu_without_fast_16_bit_arithmetic_says_so(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.packs import write_network_pack

    monkeypatch.setattr(backend, "has_fast_bfloat16", lambda: False)
    pack = write_network_pack(tmp_path, "random-5x")
    assert [code for code, _ in Predictor.load(pack, "mixed").warnings] == ["precision_not_used"]
    assert Predictor.load(pack, "auto").warnings == []


@pytest.mark.skipif(not backend.has_fast_bfloat16(), reason="this CPU has no instructions for bfloat16")
def test_mixed_precision_answers_nearly_the_same(tmp_path: Any) -> None:
    from tests.packs import write_network_pack

    pack = write_network_pack(tmp_path, "random-5x")
    exact, mixed = (Predictor.load(pack, precision) for precision in ("float32", "mixed"))
    assert mixed.policy == "mixed_bfloat16"
    assert mixed.predict(patches(4)) == pytest.approx(exact.predict(patches(4)), abs=0.02)
    lanes = [predictor.open_lane(29) for predictor in (exact, mixed)]
    pixels = np.random.default_rng(4).integers(0, 256, (2 * lanes[0].rows_m, lanes[0].width_m, 3), np.uint8)
    assert lanes[1].feed(pixels) == pytest.approx(lanes[0].feed(pixels), abs=0.02)
