"""Other formats, what is refused, and the way back."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from hepamap.cli.app import app
from hepamap.errors import HepamapError
from hepamap.exchange.errors import (
    ImportUnconfirmedError,
    LayerRefusedError,
    ModelExistsError,
    ModelFileUnreadableError,
    ModelFileUnsafeError,
    NetworkAmbiguousError,
    NetworkMismatchError,
    PredictionsDifferError,
)
from hepamap.exchange.exporting import export_model
from hepamap.exchange.formats import read_model_file
from hepamap.exchange.graph import chain_of
from hepamap.exchange.importing import ImportRequest, comparison_patches, import_model
from hepamap.model_pack import ModelPack, find_pack

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def request(file: Path, **changes: Any) -> ImportRequest:
    given = {"id": "mine", "version": "1.0.0", "mpp": 1.84, "tumour_index": 1, "scaling": "1/255", **changes}
    return ImportRequest(file, **given)


@pytest.fixture(scope="module")
def network() -> Any:
    """VGG16DrV2 + GAP on 32 px, with weights that answer differently from patch to patch."""
    from hepamap.networks import build_network

    model = build_network("VGG16DrV2", "GAP", 32)
    rng = np.random.default_rng(3)
    for variable in model.weights:
        if variable.path.endswith("kernel"):
            shape = tuple(variable.shape)
            variable.assign(rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[:-1]))))
    import keras

    last = model.get_layer("predictions")
    features = keras.Model(model.input, model.get_layer("gap").output).predict_on_batch(comparison_patches(32) / 255.0)
    logits = features @ (np.asarray(last.kernel)[:, 1] - np.asarray(last.kernel)[:, 0])
    last.kernel.assign(np.asarray(last.kernel) / logits.std())
    last.bias.assign([0, -logits.mean() / logits.std()])
    return model


@pytest.fixture(scope="module")
def keras_file(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "model.keras"
    network.save(path)
    return path


@pytest.fixture(scope="module")
def weights_file(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "model.weights.h5"
    network.save_weights(path)
    return path


def assert_same_weights(pack: ModelPack, network: Any) -> None:
    from hepamap.networks import read_weights

    expected = read_weights(network)
    found = pack.read_weights()
    assert found.keys() == {key for key in expected if "seed" not in key}
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name])


def test_a_keras_3_file_is_imported_and_comes_back(network: Any, keras_file: Path, tmp_path: Path) -> None:
    imported = import_model(request(keras_file), tmp_path)
    assert_same_weights(imported.pack, network)
    manifest = find_pack(tmp_path, "mine").manifest
    assert (manifest.network.backbone, manifest.network.head, manifest.input.patch) == ("VGG16DrV2", "GAP", 32)
    assert (manifest.modes, manifest.strides, manifest.default_stride) == (("patch",), (4, 8, 16, 24, 32), 8)
    assert manifest.training["origin"] == "imported"
    assert manifest.evaluation["import"]["max_abs_difference"] <= 1e-5
    assert manifest.evaluation["import"]["highest"] - manifest.evaluation["import"]["lowest"] > 0.3
    assert imported.notes == ()
    assert "imported" in (imported.pack.folder / "MODEL_CARD.md").read_text().splitlines()[0]

    export_model(imported.pack, tmp_path / "back.keras")
    assert_same_weights(import_model(request(tmp_path / "back.keras", id="back"), tmp_path).pack, network)
    with pytest.raises(ModelExistsError):
        export_model(imported.pack, tmp_path / "back.keras")
    with pytest.raises(ModelExistsError):
        import_model(request(keras_file), tmp_path)


def test_weights_alone_need_a_backbone_and_a_patch(network: Any, weights_file: Path, tmp_path: Path) -> None:
    with pytest.raises(NetworkAmbiguousError, match="VGG16DrV1"):
        import_model(request(weights_file, patch_m=32), tmp_path)
    with pytest.raises(ImportUnconfirmedError, match="patch"):
        import_model(request(weights_file, backbone="VGG16DrV2"), tmp_path)
    imported = import_model(request(weights_file, backbone="VGG16DrV2", patch_m=32), tmp_path)
    assert_same_weights(imported.pack, network)
    assert "your word" in imported.notes[0]


def test_a_saved_model_of_keras_3_holds_weights(network: Any, tmp_path: Path) -> None:
    network.export(tmp_path / "exported", verbose=False)
    imported = import_model(request(tmp_path / "exported", backbone="VGG16DrV2", patch_m=32), tmp_path / "models")
    assert_same_weights(imported.pack, network)


def test_a_saved_model_of_keras_2_says_its_graph(tmp_path: Path) -> None:
    from tests.exchange.keras2 import keras2_model, spread

    model = keras2_model("VGG16BnV1", "GAP")
    patches = comparison_patches(32)
    expected = spread(model, patches / np.float32(255))
    model.save(tmp_path / "saved", save_traces=False)
    imported = import_model(request(tmp_path / "saved"), tmp_path / "models")
    assert imported.pack.manifest.network.backbone == "VGG16BnV1"
    assert imported.notes == ()
    np.testing.assert_allclose(
        [imported.report["lowest"], imported.report["highest"]], [expected.min(), expected.max()], atol=1e-5
    )


def test_a_model_nested_in_a_sequential_one_is_the_same_chain(tmp_path: Path) -> None:
    import tf_keras

    from tests.exchange.keras2 import enliven

    trunk = tf_keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    layers = tf_keras.layers
    model = tf_keras.Sequential([trunk, layers.GlobalAveragePooling2D(), layers.Dense(2, activation="softmax")])
    enliven(model)
    model.save(tmp_path / "nested.h5")
    imported = import_model(request(tmp_path / "nested.h5", backbone="VGG16Base"), tmp_path)
    expected = model(comparison_patches(32) / np.float32(255)).numpy()[:, 1]
    assert imported.pack.manifest.network.backbone == "VGG16Base"
    np.testing.assert_allclose(imported.report["highest"], expected.max(), atol=1e-5)


def test_the_other_order_of_classes_is_turned(keras_file: Path, tmp_path: Path) -> None:
    usual = import_model(request(keras_file), tmp_path)
    turned = import_model(request(keras_file, id="turned", tumour_index=0), tmp_path)
    assert turned.report["highest"] == pytest.approx(1 - usual.report["lowest"], abs=1e-5)


@pytest.mark.parametrize("changes", [{"tumour_index": None}, {"tumour_index": 2}, {"scaling": None}, {"scaling": "imagenet"}])
def test_what_no_file_says_has_to_be_said(keras_file: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ImportUnconfirmedError):
        import_model(request(keras_file, **changes), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "VGG16BnV2"}, "not VGG16BnV2"),
        ({"backbone": "VGG16DrV1"}, "is VGG16DrV2, not VGG16DrV1"),
        ({"head": "FC512"}, "not FC512"),
        ({"backbone": "VGG19"}, "VGG19"),
        ({"patch_m": 64}, "32 px, not 64"),
        ({"id": "../x"}, "id cannot be"),
        ({"version": "1"}, "version cannot be"),
    ],
)
def test_what_contradicts_the_file_is_refused(keras_file: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NetworkMismatchError, match=message):
        import_model(request(keras_file, **changes), tmp_path / "models")
    assert not (tmp_path / "models").exists()


def edited(keras_file: Path, path: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a .keras file with another description."""
    with zipfile.ZipFile(keras_file) as old, zipfile.ZipFile(path, "w") as new:
        config = json.loads(old.read("config.json"))
        edit(config)
        new.writestr("config.json", json.dumps(config))
        new.writestr("metadata.json", old.read("metadata.json"))
        new.writestr("model.weights.h5", old.read("model.weights.h5"))
    return path


def layer(config: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(item for item in config["config"]["layers"] if item["config"]["name"] == name)
    return found


def _lambda(config: dict[str, Any]) -> None:
    layer(config, "block3_drop1")["class_name"] = "Lambda"


def _custom(config: dict[str, Any]) -> None:
    layer(config, "block1_conv1").update(module="evil", registered_name="evil>Conv2D")


def _unknown(config: dict[str, Any]) -> None:
    layer(config, "block1_pool")["class_name"] = "AveragePooling2D"


def _activation(config: dict[str, Any]) -> None:
    layer(config, "block1_conv1")["config"]["activation"] = "gelu"


@pytest.mark.parametrize("edit", [_lambda, _custom, _unknown, _activation])
def test_layers_that_could_be_anything_are_refused(keras_file: Path, tmp_path: Path, edit: Any) -> None:
    with pytest.raises(LayerRefusedError):
        import_model(request(edited(keras_file, tmp_path / "x.keras", edit)), tmp_path)


def _dilated(config: dict[str, Any]) -> None:
    layer(config, "block4_conv2")["config"]["padding"] = "valid"


def _pooled(config: dict[str, Any]) -> None:
    layer(config, "block2_pool")["config"]["pool_size"] = [3, 3]


def _incomplete(config: dict[str, Any]) -> None:
    del layer(config, "block2_conv1")["config"]["filters"]


def _branched(config: dict[str, Any]) -> None:
    layer(config, "block2_pool")["inbound_nodes"] = layer(config, "block2_conv1")["inbound_nodes"]


@pytest.mark.parametrize("edit", [_dilated, _pooled, _incomplete, _branched])
def test_another_network_is_refused(keras_file: Path, tmp_path: Path, edit: Any) -> None:
    with pytest.raises(NetworkMismatchError):
        import_model(request(edited(keras_file, tmp_path / "x.keras", edit)), tmp_path)


def test_other_dropout_has_to_be_named(keras_file: Path, tmp_path: Path) -> None:
    def edit(config: dict[str, Any]) -> None:
        layer(config, "block3_drop1")["config"]["rate"] = 0.3

    file = edited(keras_file, tmp_path / "x.keras", edit)
    with pytest.raises(NetworkAmbiguousError, match="dropout"):
        import_model(request(file), tmp_path)
    assert import_model(request(file, backbone="VGG16DrV2", head="GAP"), tmp_path).max_abs_difference <= 1e-5


def test_names_that_contradict_the_order_are_refused(weights_file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "x.weights.h5"
    copy.write_bytes(weights_file.read_bytes())
    with h5py.File(copy, "a") as file:  # block3_conv2 and block3_conv3 have one shape: only their names tell
        file["layers/conv2d_5/vars"].attrs["name"] = "block3_conv3"
        file["layers/conv2d_6/vars"].attrs["name"] = "block3_conv5"
    with pytest.raises(NetworkAmbiguousError, match="block3_conv3"):
        import_model(request(copy, backbone="VGG16DrV2", patch_m=32), tmp_path)


def test_answers_that_differ_install_nothing(keras_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hepamap.exchange import reference

    real = reference.answers
    monkeypatch.setattr("hepamap.exchange.importing.answers", lambda *given: real(*given) + 2e-5)
    with pytest.raises(PredictionsDifferError, match="up to 2"):
        import_model(request(keras_file), tmp_path / "models")
    assert not (tmp_path / "models").exists()


def hdf5(path: Path, write: Callable[[h5py.File], None]) -> Path:
    with h5py.File(path, "w") as file:
        write(file)
    return path


def _external_link(file: h5py.File) -> None:
    file["layers"] = h5py.ExternalLink("/etc/hostname", "/")


def _soft_link(file: h5py.File) -> None:
    file["layers"] = h5py.SoftLink("/elsewhere")


def _external_data(file: h5py.File) -> None:
    file.create_dataset("layers/conv2d/vars/0", (3, 3, 3, 64), "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
    file.create_virtual_dataset("layers/conv2d/vars/0", layout)


def _bomb(file: h5py.File) -> None:
    file.create_dataset("layers/dense/vars/0", (1 << 20, 1 << 12), "f4", chunks=(1 << 10, 1 << 10), compression="gzip")


@pytest.mark.parametrize("write", [_external_link, _soft_link, _external_data, _virtual, _bomb])
def test_hdf5_that_leads_out_or_grows_is_refused(tmp_path: Path, write: Any) -> None:
    with pytest.raises(ModelFileUnsafeError):
        read_model_file(hdf5(tmp_path / "x.h5", write))


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * (8 << 20))
        archive.writestr("model.weights.h5", b"")
    with pytest.raises(ModelFileUnsafeError):
        read_model_file(tmp_path / "x.keras")


def _text(path: Path) -> None:
    path.write_text("import os\n" * 100)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _folder(path: Path) -> None:
    path.mkdir()


def _other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "x")


def _other_hdf5(path: Path) -> None:
    hdf5(path, lambda file: file.create_dataset("x", data=np.zeros(3)))


def _missing(path: Path) -> None:
    pass


@pytest.mark.parametrize("write", [_text, _empty, _folder, _other_zip, _other_hdf5, _missing])
def test_what_is_no_model_is_unreadable(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "x.h5")
    with pytest.raises(ModelFileUnreadableError):
        read_model_file(tmp_path / "x.h5")


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
def test_truncated_files_are_unreadable(keras_file: Path, weights_file: Path, tmp_path: Path, share: float) -> None:
    for whole in (keras_file, weights_file):
        cut = tmp_path / whole.name
        data = whole.read_bytes()
        cut.write_bytes(data[: int(share * len(data))])
        with pytest.raises(ModelFileUnreadableError):
            read_model_file(cut)


def test_broken_bytes_never_end_in_a_traceback(tmp_path: Path) -> None:
    head = io.BytesIO()
    with h5py.File(head, "w") as file:
        file.create_group("layers/dense/vars").create_dataset("0", data=np.zeros((4, 2), np.float32))
    data = head.getvalue()
    rng = np.random.default_rng(1)
    for _ in range(200):
        broken = bytearray(data)
        for place in rng.integers(8, len(data), 3):
            broken[place] ^= int(rng.integers(1, 256))
        (tmp_path / "x.h5").write_bytes(broken)
        with suppress(HepamapError):  # any other error fails the test
            read_model_file(tmp_path / "x.h5")


@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_whose_packed_bytes_are_damaged_is_unreadable(tmp_path: Path, how: int) -> None:
    path = tmp_path / "x.keras"
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Functional", "config": {"name": "x" * 50}}))
        archive.writestr("model.weights.h5", np.random.default_rng(0).bytes(2000))
    data = path.read_bytes()
    packed = 30 + len("config.json")  # the local header of the first member has 30 bytes and its name
    for place in range(packed, packed + 40):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        with pytest.raises(ModelFileUnreadableError):
            read_model_file(path)


def test_deep_descriptions_are_refused(tmp_path: Path) -> None:
    nested: dict[str, Any] = {"class_name": "Dense", "config": {"name": "x"}}
    for _ in range(20):
        nested = {"class_name": "Sequential", "config": {"name": "s", "layers": [nested]}}
    with pytest.raises(LayerRefusedError):
        chain_of(nested)
    listed: list[Any] = []
    for _ in range(900):
        listed = [listed]
    with pytest.raises(NetworkMismatchError, match="nested deeper"):
        chain_of({"class_name": "Functional", "config": listed})
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
        archive.writestr("config.json", "[" * 100_000)
        archive.writestr("model.weights.h5", b"")
    with pytest.raises(ModelFileUnreadableError):
        read_model_file(tmp_path / "x.keras")


def test_the_command_line(keras_file: Path, tmp_path: Path) -> None:
    arguments = ["models", "import", str(keras_file), "--id", "mine", "--mpp", "1.84", "--models-dir", str(tmp_path)]
    shown = CliRunner().invoke(app, [*arguments, "--tumour-index", "1", "--scaling", "1/255"])
    assert shown.exit_code == 0, shown.output
    assert "VGG16DrV2 + GAP, 32 px at 1.84" in shown.output
    assert "largest difference of a probability before and after:" in shown.output
    back = CliRunner().invoke(app, ["models", "export", "mine", str(tmp_path / "x.keras"), "--models-dir", str(tmp_path)])
    assert back.exit_code == 0, back.output
    assert (tmp_path / "x.keras").stat().st_size > 50_000_000
