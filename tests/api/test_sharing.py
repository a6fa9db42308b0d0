"""The same question twice, over HTTP: one computation, answers for everybody; the same request twice: one analysis."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from hepamap.api.app import create_app
from hepamap.api.idempotency import mark
from hepamap.detection import Detector
from hepamap.jobs.job import Computation, JobResult
from hepamap.jobs.runner import JobContext
from hepamap.model_pack import ModelPack, find_pack, rewrite_manifest, write_pack
from hepamap.predictor import Predictor
from hepamap.settings import Settings
from hepamap.worker.handler import DetectionHandler
from tests.api.conftest import MODEL, FakeDetector, HalfAndHalf, post, result_folder, services_of, work
from tests.api.test_bad_input import check_problem
from tests.conftest import write_tiff_slide
from tests.packs import manifest_body

MARK = {"Idempotency-Key": "8e03978e-40d5-43e8-bc93-6894a57f9324"}


def get(client: TestClient, analysis: Any) -> Any:
    return client.get(analysis["links"]["self"]).raise_for_status().json()


def ask(client: TestClient, slide: Path, headers: dict[str, str] = MARK, **others: Any) -> Any:
    return client.post("/api/v1/analyses", json={"slide": {"path": str(slide)}, **others}, headers=headers)


def uploaded(client: TestClient, content: bytes, headers: dict[str, str] | None = None) -> Any:
    files = {"file": ("slide.tif", content)}
    return client.post("/api/v1/analyses", files=files, headers=headers)


def test_an_answered_question_is_answered_at_once(client: TestClient, slide: Path) -> None:
    first = post(client, slide, identity={"accession": "S26-1"})
    work(client)
    second = post(client, slide, identity={"accession": "S26-2"})
    assert (second["state"], second["identity"]) == ("succeeded", {"accession": "S26-2"})
    assert second["id"] != first["id"]
    assert second["progress"]["fraction"] == 1.0
    one, two = (client.get(analysis["links"]["contours"]) for analysis in (first, second))
    assert one.content == two.content
    assert services_of(client).store.claim() is None


def test_nobody_is_told_of_what_another_ones_viewer_says(client: TestClient, root: Path) -> None:
    """The slide is silent about its pixel size; who gives one is told where his own viewer says another one."""
    slide = write_tiff_slide(root / "silent.tif", np.full((900, 1200, 3), 150, np.uint8), None)

    def asked(seen_um: float | None) -> Any:
        view = {"width": 1200, "height": 900, "pixel_width_um": seen_um, "pixel_height_um": seen_um}
        return post(client, slide, mpp_um=0.46, **({} if seen_um is None else {"client_view": view}))

    against, agreeing, without = asked(0.23), asked(0.46), asked(None)
    work(client)
    work(client)
    assert services_of(client).store.claim() is None
    codes = [{warning["code"] for warning in get(client, one)["warnings"]} for one in (against, agreeing, without)]
    assert ["pixel_size_overridden" in told for told in codes] == [True, False, False]


def test_who_asks_while_it_runs_shares_the_result(client: TestClient, slide: Path) -> None:
    first, second = post(client, slide), post(client, slide)
    client.delete(first["links"]["self"])
    work(client)
    assert services_of(client).store.claim() is None
    assert (get(client, first)["state"], get(client, second)["state"]) == ("cancelled", "succeeded")
    assert client.get(second["links"]["contours"]).status_code == 200


def test_deleting_one_leaves_the_other_its_result(client: TestClient, slide: Path) -> None:
    first, second = post(client, slide), post(client, slide)
    work(client)
    folder = result_folder(client, first)
    assert client.delete(first["links"]["self"]).status_code == 204
    assert client.get(second["links"]["contours"]).status_code == 200
    assert client.delete(second["links"]["self"]).status_code == 204
    assert not folder.exists()


def test_asking_again_mends_a_result_that_was_lost(client: TestClient, slide: Path) -> None:
    first = post(client, slide)
    work(client)
    (result_folder(client, first) / "result.json").unlink()
    second = post(client, slide)
    assert second["state"] == "queued"
    work(client)
    assert client.get(second["links"]["contours"]).status_code == 200


def test_who_mistrusts_an_answer_has_it_computed_anew(client: TestClient, slide: Path) -> None:
    first = post(client, slide)
    work(client)
    second, third = post(client, slide, recompute=True), post(client, slide, recompute=True)
    assert (second["state"], second["request"]["recompute"]) == ("queued", True)
    work(client)
    assert services_of(client).store.claim() is None  # the third joined the second, which had not begun
    assert len({result_folder(client, analysis) for analysis in (second, third)} - {result_folder(client, first)}) == 1
    # Whoever asks from now on is answered by the new one; the old one is still there for who was told of it.
    assert result_folder(client, post(client, slide)) == result_folder(client, second)
    assert client.get(first["links"]["contours"]).status_code == 200


class Otherwise(HalfAndHalf):
    def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        return super().predict(patches) * np.float32(0.5)


class OtherDetector(Detector):
    def predictor(self, pack: ModelPack) -> Predictor:
        return cast(Predictor, Otherwise())


@pytest.mark.parametrize("cancelled", [False, True])
def test_what_is_computed_anew_has_nothing_of_what_was_left(client: TestClient, slide: Path, cancelled: bool) -> None:
    """Neither of one that has finished and whose worker did not come to clean up, nor of one that is being given up."""
    first = post(client, slide)
    if cancelled:
        left = start_and_leave(client)
        client.delete(first["links"]["self"])
    else:
        left = work(client)
        stored = result_folder(client, first) / "probability-map.npy"
    assert any((services_of(client).settings.scratch_dir / left.pieces).iterdir())
    second = post(client, slide, recompute=True)
    work(client, OtherDetector)
    values = np.load(result_folder(client, second) / "probability-map.npy")
    assert np.nanmax(values) < 0.5
    if not cancelled:
        assert np.nanmax(np.load(stored)) > 0.5


def start_and_leave(client: TestClient) -> Computation:
    """A worker that makes its pieces, and has said nothing since."""
    services = services_of(client)
    running = services.store.claim()
    assert running is not None
    settings = services.settings
    handler = DetectionHandler(FakeDetector(settings.models_dir), settings.results_dir, settings.scratch_dir)
    handler(running, JobContext(report=lambda progress: None, cancelled=lambda: False))
    return running


def test_a_slide_that_is_uploaded_twice_is_kept_once(client: TestClient, slide_bytes: bytes) -> None:
    uploads = services_of(client).settings.uploads_dir
    first, second = (uploaded(client, slide_bytes).json() for _ in range(2))
    assert len(list(uploads.iterdir())) == 1
    assert client.delete(first["links"]["self"]).status_code == 202
    assert client.delete(first["links"]["self"]).status_code == 204
    assert len(list(uploads.iterdir())) == 1
    work(client)
    assert get(client, second)["state"] == "succeeded"
    client.delete(second["links"]["self"])
    assert list(uploads.iterdir()) == []


def test_a_slide_that_was_sent_serves_who_asked_by_a_path_that_has_gone(client: TestClient, slide: Path) -> None:
    by_path, sent = post(client, slide), uploaded(client, slide.read_bytes()).json()
    slide.unlink()
    work(client)
    assert services_of(client).store.claim() is None  # one computation for both
    assert [get(client, analysis)["state"] for analysis in (by_path, sent)] == ["succeeded", "succeeded"]


def test_a_slide_that_was_sent_serves_the_next_start_of_one_that_ran_by_a_path(client: TestClient, slide: Path) -> None:
    store = services_of(client).store
    by_path = post(client, slide)
    running = store.claim()
    assert running is not None
    sent = uploaded(client, slide.read_bytes()).json()
    assert store.beat(running, running.progress).owned
    slide.unlink()
    store.recover(attempts_max=3)  # its worker was killed
    work(client)
    assert store.claim() is None
    assert [get(client, analysis)["state"] for analysis in (by_path, sent)] == ["succeeded", "succeeded"]


def test_a_slide_that_was_sent_to_one_that_runs_by_a_path_does_not_disturb_it(client: TestClient, slide: Path) -> None:
    by_path = post(client, slide)
    store = services_of(client).store
    running = store.claim()
    assert running is not None
    sent = uploaded(client, slide.read_bytes()).json()
    assert store.succeed(running, JobResult("ok", (), "result"))
    assert [get(client, analysis)["state"] for analysis in (by_path, sent)] == ["succeeded", "succeeded"]
    for analysis in (by_path, sent):
        client.delete(analysis["links"]["self"]).raise_for_status()
    assert list(services_of(client).settings.uploads_dir.iterdir()) == []


def test_a_marked_request_that_comes_again_is_the_same_analysis(client: TestClient, slide: Path) -> None:
    first = ask(client, slide)
    slide.unlink()  # the second answer does not depend on what has become of the slide
    second = ask(client, slide)
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json()["id"] == first.json()["id"]
    assert second.headers["location"] == first.headers["location"]


def test_a_mark_on_another_request_is_refused(client: TestClient, slide: Path) -> None:
    assert ask(client, slide).status_code == 202
    check_problem(ask(client, slide, threshold=0.7), 422, "idempotency_key_reused")
    assert len(client.get("/api/v1/analyses").json()["items"]) == 1


def test_a_marked_upload_that_comes_again_is_the_same_analysis(client: TestClient, slide_bytes: bytes) -> None:
    uploads = services_of(client).settings.uploads_dir
    first, second = (uploaded(client, slide_bytes, MARK) for _ in range(2))
    assert second.json()["id"] == first.json()["id"]
    check_problem(uploaded(client, slide_bytes + b"other", MARK), 422, "idempotency_key_reused")
    assert len(list(uploads.iterdir())) == 1


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "a\tb", "schlüssel"])
def test_a_mark_that_cannot_be_kept_is_refused(client: TestClient, slide: Path, key: str) -> None:
    headers: Any = {"Idempotency-Key": key.encode("latin-1")}
    check_problem(ask(client, slide, headers), 422, "request_invalid")


def test_a_refused_request_uses_no_mark_up(client: TestClient, slide: Path) -> None:
    check_problem(ask(client, slide, threshold=7), 422, "threshold_invalid")
    assert ask(client, slide).status_code == 202


def test_many_that_send_the_same_marked_request_at_once_have_one_analysis(client: TestClient, slide: Path) -> None:
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.append(ask(client, slide).json()["id"])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1


def test_a_region_comes_before_whole_slides_unless_it_says_otherwise(client: TestClient, slide: Path) -> None:
    box = {"type": "Polygon", "coordinates": [[[0, 0], [900, 0], [900, 900], [0, 900], [0, 0]]]}
    night = [post(client, slide, threshold=threshold) for threshold in (0.2, 0.3, 0.4)]
    patient = post(client, slide, region=box, threshold=0.6, priority=-5)
    urgent = post(client, slide, region=box)
    store = services_of(client).store
    jobs = [store.get(analysis["id"]) for analysis in (urgent, *night, patient)]
    order = [store.claim() for _ in range(5)]
    assert [work.id for work in order if work] == [job.computation_id for job in jobs if job]


def test_no_two_callers_have_one_mark() -> None:
    pairs = [("oidc:a", "b c"), ("oidc:a b", "c"), ("oidc:a b c", "d"), ("7 oidc:a", "b c")]
    keys = {mark(key, caller, "hash").key for caller, key in pairs}
    assert len(keys) == len(pairs)
    assert all(len(key) <= 512 for key in (*keys, mark("k" * 255, "c" * 255, "hash").key))


# ---- a pack that changes while an analysis waits -----------------------------------------------------------------------


@pytest.fixture
def changing(settings: Settings, tmp_path: Path) -> Iterator[TestClient]:
    """A server with packs of its own."""
    shutil.copytree(settings.models_dir, tmp_path / "packs")
    with TestClient(create_app(settings.model_copy(update={"models_dir": tmp_path / "packs"}))) as client:
        yield client


def test_new_defaults_of_a_pack_do_not_change_what_waits(changing: TestClient, slide: Path) -> None:
    asked = post(changing, slide)
    pack = find_pack(services_of(changing).settings.models_dir, MODEL)
    rewrite_manifest(pack, default_stride=32, default_threshold=0.95, title="With other defaults")
    work(changing)
    summary = json.loads((result_folder(changing, asked) / "result.json").read_text())
    assert (summary["parameters"]["stride"], summary["parameters"]["threshold"]) == (16, 0.5)
    again = post(changing, slide)
    work(changing)
    summary = json.loads((result_folder(changing, again) / "result.json").read_text())
    assert (summary["parameters"]["stride"], summary["parameters"]["threshold"]) == (32, 0.95)


def test_what_waits_for_other_weights_fails_and_says_so(changing: TestClient, slide: Path) -> None:
    asked = post(changing, slide)
    folder = find_pack(services_of(changing).settings.models_dir, MODEL).folder
    write_pack(folder, manifest_body(MODEL), {"layer/kernel": np.ones(1)}, "# For tests\n")
    work(changing)
    error = get(changing, asked)["error"]
    assert error["code"] == "model_changed"
    assert error["cure"].startswith("Ask for the analysis again.")
    work_again = post(changing, slide)
    work(changing)
    assert get(changing, work_again)["state"] == "succeeded"
