"""The same network on another keras backend: the code of the serving path keeps to keras."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hepamap.predictor import Predictor
from tests.packs import write_network_pack

PROGRAM = """
import sys
import numpy as np
from pathlib import Path
from hepamap.model_pack import find_pack
from hepamap.predictor import Predictor

predictor = Predictor.load(find_pack(Path(sys.argv[1]), "random-5x"))
import keras
assert keras.config.backend() == sys.argv[2], keras.config.backend()
given = np.load(sys.argv[3])
lane = predictor.open_lane(29)
np.savez(sys.argv[4], patches=predictor.predict(given["patches"]), lane=lane.feed(given["lane"]), device=predictor.device)
"""


def test_jax_answers_as_tensorflow_does(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    predictor = Predictor.load(write_network_pack(tmp_path / "models", "random-5x"))
    rng = np.random.default_rng(1)
    lane = predictor.open_lane(29)
    patches = rng.integers(0, 256, (3, 64, 64, 3), np.uint8)
    pixels = rng.integers(0, 256, (2 * lane.rows_m, lane.width_m, 3), np.uint8)
    np.savez(tmp_path / "given.npz", patches=patches, lane=pixels)
    found = tmp_path / "found.npz"
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "models"), "jax", str(tmp_path / "given.npz"), str(found)],
        check=True,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        timeout=300,
    )
    answers = np.load(found)
    assert answers["patches"] == pytest.approx(predictor.predict(patches), abs=1e-5)
    assert answers["lane"] == pytest.approx(lane.feed(pixels), abs=1e-5)
    assert str(answers["device"]) == "cpu"


def test_what_arithmetic_is_used_is_settled_before_anyone_imports_keras() -> None:
    """A command, a library's user and a test get the same convolutions: TensorFlow reads it once, as it is imported."""
    program = (
        "import os, sys, hepamap; print('keras' in sys.modules, *map(os.environ.get, ('KERAS_BACKEND', 'TF_ENABLE_ONEDNN_OPTS')))"
    )
    chosen = {"KERAS_BACKEND": "jax", "TF_ENABLE_ONEDNN_OPTS": "0"}
    bare = {name: value for name, value in os.environ.items() if name not in chosen}

    def answer(env: dict[str, str]) -> str:
        done = subprocess.run([sys.executable, "-c", program], check=True, env=env, capture_output=True, text=True)
        return done.stdout.strip()

    assert answer(bare) == f"False tensorflow {'1' if platform.machine() == 'x86_64' else None}"
    assert answer(bare | chosen) == "False jax 0"


def test_ctrl_c_waits_until_keras_is_imported() -> None:
    """Within TensorFlow's import it was swallowed, and the command went on."""
    program = """
import signal, sys

class Interrupter:
    def find_spec(self, name, *_):
        if name == "keras":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupter())
from hepamap.predictor import start_backend
try:
    start_backend()
except KeyboardInterrupt:
    print("stopped,", "after" if hasattr(sys.modules.get("keras"), "Model") else "within", "the import")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "stopped, after the import\n"
