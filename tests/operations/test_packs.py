"""Whether a pack is whole, as the server remembers it."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from hepamap.errors import PackDamagedError
from hepamap.model_pack import ModelPack, write_pack
from hepamap.operations.packs import PackChecker
from tests.packs import manifest_body


@pytest.fixture
def pack(tmp_path: Path) -> ModelPack:
    return write_pack(tmp_path / "tiny-5x" / "1.0.0", manifest_body(), {"a/b": np.zeros(3)}, "# For tests\n")


@contextmanager
def _no_file_can_be_opened() -> Iterator[None]:
    """As in a process that has too many open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_weights_that_could_not_be_read_once_are_read_again(pack: ModelPack) -> None:
    checker = PackChecker()
    with _no_file_can_be_opened(), pytest.raises(PackDamagedError, match="cannot be read"):
        checker.verify(pack)
    checker.verify(pack)


def test_weights_that_did_not_change_are_not_read_again(pack: ModelPack) -> None:
    checker = PackChecker()
    checker.verify(pack)
    weights = pack.folder / pack.manifest.weights.file
    with _no_file_can_be_opened():
        checker.verify(pack)
    weights.write_bytes(weights.read_bytes() + b"?")
    for _ in range(2):
        with pytest.raises(PackDamagedError, match="sha256"):
            checker.verify(pack)
        # Nor those that are known to be damaged.
        with _no_file_can_be_opened(), pytest.raises(PackDamagedError, match="sha256"):
            checker.verify(pack)
