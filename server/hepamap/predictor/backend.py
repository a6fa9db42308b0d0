"""What is particular to a keras backend or a device; imports keras when it is asked."""

from __future__ import annotations

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
_OUT_OF_MEMORY = ("resource_exhausted", "resourceexhausted", "out of memory", "outofmemory", "oom when allocating")


def start_backend() -> None:
    """Import keras, and keep its start-up chatter out of our output."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # A card may have other users: take memory as it is needed.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if "keras" in sys.modules:
        return
    # TensorFlow's libraries write to descriptor 2 before any setting of theirs is read.
    with interrupts_deferred(), tempfile.TemporaryFile() as chatter, _descriptor_2_to(chatter):
        import keras

        keras.distribution.list_devices()  # looks for GPUs, and talks about it
    # Its warnings are for those who write graphs, e.g. that lanes of several widths have a graph each.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def device_kind() -> str:
    """What networks run on: `gpu` or `cpu`."""
    import keras

    kinds = {str(name).split(":")[0].lower() for name in keras.distribution.list_devices()}
    return "gpu" if kinds & {"gpu", "cuda"} else "cpu"


def has_unused_gpu(device: str) -> bool:
    """Whether there is an NVIDIA card in the machine that the backend cannot use."""
    return device == "cpu" and Path("/dev/nvidia0").exists()


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
    import keras

    model.compile(jit_compile=keras.config.backend() == "jax")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a backend's error means that memory did not suffice; each has its own type for it."""
    text = f"{type(error).__name__}: {error}".lower()
    return isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY)


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
