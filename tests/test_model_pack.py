import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hepamap.errors import ModelChangedError, ModelNotFoundError, OutputNotWritableError, PackDamagedError, PackInvalidError
from hepamap.model_pack import (
    ModelPack,
    find_pack,
    list_packs,
    load_pack,
    manifest_schema_json,
    require_writable,
    rewrite_manifest,
    write_pack,
)
from tests.packs import manifest_body

WEIGHTS = {"block1_conv1/kernel": np.linspace(-1, 1, 24).reshape(2, 3, 4), "block1_conv1/bias": np.zeros(4)}


def write(models: Path, identifier: str = "tiny-5x", version: str = "1.0.0") -> ModelPack:
    return write_pack(models / identifier / version, manifest_body(identifier, version), WEIGHTS, "# Card\n")


def edit(pack: ModelPack, **changes: object) -> None:
    path = pack.folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_weights_come_back(tmp_path: Path) -> None:
    pack = write(tmp_path)
    read = find_pack(tmp_path, "tiny-5x").read_weights()
    assert read.keys() == WEIGHTS.keys()
    for name, value in WEIGHTS.items():
        assert read[name].dtype == np.float32
        assert np.array_equal(read[name], value.astype(np.float16).astype(np.float32))
    assert (pack.folder / "MODEL_CARD.md").read_text() == "# Card\n"
    assert [item.name for item in pack.folder.parent.iterdir()] == ["1.0.0"]


@pytest.mark.parametrize("place", [0, 8, 60, -1])
def test_one_changed_byte_is_refused(tmp_path: Path, place: int) -> None:
    pack = write(tmp_path)
    path = pack.folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(PackDamagedError, match="sha256"):
        pack.verify()
    with pytest.raises(PackDamagedError):
        pack.read_weights()


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    pack = write(tmp_path)
    (pack.folder / "weights.safetensors").unlink()
    with pytest.raises(PackDamagedError):
        pack.verify()


@pytest.mark.parametrize(
    "changes",
    [
        {"default_stride": 17},
        {"strides": []},
        {"surprise": 1},
        {"schema_version": 2},
        {"default_mode": "dense"},
        {"input": {"mpp": -1, "patch": 64}},
        {"weights": {"file": "../elsewhere", "sha256": "0" * 64, "dtype": "float16"}},
        {"id": "../x"},
    ],
)
def test_a_manifest_that_breaks_the_schema_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    pack = write(tmp_path)
    edit(pack, **changes)
    with pytest.raises(PackInvalidError) as caught:
        load_pack(pack.folder)
    assert "tiny-5x/1.0.0" in caught.value.message


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(PackInvalidError):
        load_pack(tmp_path)


def test_the_newest_version_is_found(tmp_path: Path) -> None:
    for version in ("1.2.0", "1.10.0", "1.9.9"):
        write(tmp_path, version=version)
    write(tmp_path, "other")
    assert find_pack(tmp_path, "tiny-5x").name == "tiny-5x@1.10.0"
    assert find_pack(tmp_path, "tiny-5x@1.9.9").manifest.version == "1.9.9"
    assert [pack.name for pack in list_packs(tmp_path)] == ["other@1.0.0", "tiny-5x@1.10.0", "tiny-5x@1.9.9", "tiny-5x@1.2.0"]


@pytest.mark.parametrize("name", ["none", "tiny-5x@9.9.9", "", "../tiny-5x", "*", "tiny-5x/1.0.0"])
def test_an_unknown_model_is_named_with_what_there_is(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    with pytest.raises(ModelNotFoundError) as caught:
        find_pack(tmp_path, name)
    assert "tiny-5x" in caught.value.cure


def test_an_old_pack_goes_only_when_the_new_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any step of the change, one of the two is on the disk, whole."""
    pack = write(tmp_path)
    old = pack.manifest.weights.sha256
    real_remove, removed = shutil.rmtree, []

    def remove(path: Path, *args: Any, **options: Any) -> None:
        hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in Path(path).rglob("weights.safetensors")]
        if old in hashes:
            removed.append(load_pack(pack.folder).manifest.weights.sha256)
        real_remove(path, *args, **options)

    monkeypatch.setattr(shutil, "rmtree", remove)
    new = write_pack(pack.folder, manifest_body("tiny-5x", "1.0.0"), {"a/b": np.ones(3)}, "")
    assert removed == [new.manifest.weights.sha256]
    assert [item.name for item in pack.folder.parent.iterdir()] == ["1.0.0"]


def test_the_published_schema_is_the_one_in_force() -> None:
    published = Path(__file__).resolve().parents[1] / "models" / "model.schema.json"
    assert published.read_text(encoding="utf-8") == manifest_schema_json()


NOWHERE = Path("/proc/hepamap")
"""No one may make a folder there, nor may root."""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc is of Linux")
def test_a_folder_that_cannot_be_written_is_known_before_the_work(tmp_path: Path) -> None:
    require_writable(tmp_path / "models" / "tiny-5x" / "1.0.0")
    assert list(tmp_path.iterdir()) == []
    folder = NOWHERE / "tiny-5x" / "1.0.0"
    with pytest.raises(OutputNotWritableError, match=r"tiny-5x/1\.0\.0 cannot be written") as caught:
        require_writable(folder)
    assert "--resume" in caught.value.cure
    with pytest.raises(OutputNotWritableError):
        write_pack(folder, manifest_body("tiny-5x", "1.0.0"), WEIGHTS, "")


def test_other_weights_are_not_described_by_what_was_measured(tmp_path: Path) -> None:
    pack = write(tmp_path, "tiny-5x")
    new = write_pack(pack.folder, manifest_body("tiny-5x", "1.0.0"), {"a/b": np.ones(3)}, "")
    with pytest.raises(ModelChangedError, match="replaced since"):
        rewrite_manifest(pack, default_stride=32)
    assert load_pack(pack.folder).manifest == new.manifest
