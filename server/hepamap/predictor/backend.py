"""What is particular to a keras backend or a device; imports keras when it is asked."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from hepamap.interrupts import interrupts_deferred

PRECISIONS = ("auto", "float32", "mixed")
"""What a user may ask for: `auto` is mixed on a GPU and float32 on a CPU; `mixed` computes in 16 bits and adds up in 32."""

_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # of x86, x86 and ARM
_OUT_OF_MEMORY = (
    "resource_exhausted",
    "resourceexhausted",
    "out of memory",
    "out_of_memory",
    "outofmemory",
    "oom when allocating",
    "failed to allocate",
    "alloc_failed",  # of cuDNN and cuBLAS
    "memoryallocation",  # of CUDA
)
# What a card says whose memory others hold already when its libraries start; it may also be a broken installation.
_CARD_UNUSABLE = (
    "dnn library initialization failed",
    "dnn library is not found",
    "no algorithm worked",
    "cudnn_status_not_initialized",
    "cublas_status_not_initialized",
    "failed call to cuinit",
)


def start_backend() -> None:
    """Import keras, and keep its start-up chatter out of our output."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # A card may have other users: take memory as it is needed.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the same for JAX
    if "keras" in sys.modules:
        return
    # TensorFlow's libraries write to descriptor 2 before any setting of theirs is read.
    with interrupts_deferred(), tempfile.TemporaryFile() as chatter, _descriptor_2_to(chatter):
        import keras  # noqa: F401

        _devices()  # looks for GPUs, and talks about it
    # Its warnings are for those who write graphs, e.g. that lanes of several widths have a graph each.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def device_kind() -> str:
    """What networks run on: `gpu` or `cpu`."""
    kinds = {name.split(":")[0].lower() for name in _devices()}
    return "gpu" if kinds & {"gpu", "cuda"} else "cpu"


def _devices() -> list[str]:
    """What the backend can compute on, e.g. `cpu:0`, `gpu:0`."""
    import keras

    if keras.config.backend() == "torch":  # keras has no list of its devices
        cards = importlib.import_module("torch").cuda.device_count()
        return ["cpu:0", *(f"cuda:{number}" for number in range(cards))]
    return [str(name) for name in keras.distribution.list_devices()]


def has_unused_gpu(device: str, devices: Path = Path("/dev")) -> bool:
    """Whether there is an NVIDIA card in the machine that the backend cannot use, and nobody took it from it on purpose."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    return device == "cpu" and not hidden and any(devices.glob("nvidia[0-9]*"))


def dtype_policy(precision: str, device: str) -> str:
    """Keras' name of a precision on a device.

    Half precision on GPUs, which all of them have; bfloat16 on CPUs that have instructions for it.
    """
    if device == "gpu" and precision != "float32":
        return "mixed_float16"
    return "mixed_bfloat16" if precision == "mixed" and has_fast_bfloat16() else "float32"


def has_fast_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16; others imitate them, and are many times slower than in float32."""
    try:
        return not _BFLOAT16_FLAGS.isdisjoint(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return False


@contextmanager
def policy(name: str) -> Iterator[None]:
    """Layers that are made in the block compute by this policy; weights are float32 in any case."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def compile_graph(model: Any) -> None:
    """Let a network's answers come from a compiled graph.

    TensorFlow's own graphs are enough: XLA on a CPU was measured to be a third slower. JAX has nothing else.
    """
    model.compile(jit_compile=compiles_shapes())


def compiles_shapes() -> bool:
    """Whether a graph that was compiled for arrays of one shape is of no use for another."""
    import keras

    return bool(keras.config.backend() == "jax")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a backend's error means that memory did not suffice; each has its own type for it."""
    return isinstance(error, MemoryError) or _says(error, _OUT_OF_MEMORY)


def is_card_unusable(error: BaseException) -> bool:
    """Whether a backend's error means that a GPU's libraries do not start: smaller pieces do not help, the CPU does."""
    return _says(error, _CARD_UNUSABLE)


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    text = f"{type(error).__name__}: {error}".lower()
    return any(word in text for word in words)


@contextmanager
def _descriptor_2_to(target: IO[bytes]) -> Iterator[None]:
    """Standard error goes to a file for a while; it comes out all the same where something fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(target.fileno(), 2)
    try:
        yield
    except BaseException:
        target.seek(0)
        os.write(kept, target.read())
        raise
    finally:
        os.dup2(kept, 2)
        os.close(kept)
