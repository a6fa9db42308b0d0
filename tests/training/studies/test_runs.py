from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hepamap.errors import OutputNotWritableError
from hepamap.jobs.processes import exclusive_lock
from hepamap.training.build import DatasetSpec, build_dataset
from hepamap.training.dataset import combine, open_dataset
from hepamap.training.errors import DatasetInvalidError, PatchesTooFewError, ResumeImpossibleError, StudyBusyError
from hepamap.training.studies.data_size import study_data_size
from hepamap.training.studies.factors import Selection
from hepamap.training.studies.loop import drawn
from tests.training.studies.tiny import SIZES, run, study_file

RUNS = 4
STEPS_OF_A_RUN = 4 + 2  # steps, and the validations, which are told too


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "out" / "runs.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def numbers(folder: Path) -> list[dict[str, str]]:
    """Everything but the time."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows_of(folder)]


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    study_file(folder)
    assert len(run(folder, data)) == RUNS
    return folder


def test_every_combination_is_a_row_with_a_score(undisturbed: Path) -> None:
    rows = rows_of(undisturbed)
    assert [(row["backbone"], row["batch_size"], row["optimiser"]) for row in rows] == [
        ("TinyA", size, optimiser) for size in ("8", "16") for optimiser in ("sgd", "adam")
    ]
    assert all(row["status"] == "ok" and row["steps"] == "4" and 0 <= float(row["auc"]) <= 1 for row in rows)
    # Red against blue: four steps are enough for one at least to tell most of them apart.
    assert max(float(row["auc"]) for row in rows) > 0.8
    out = undisturbed / "out"
    assert {path.name for path in out.iterdir()} == {
        *("study.json", "runs.csv", "runs", ".lock", "factors.csv", "factors.md", "factors.png")
    }
    # The state of a run is large, and of no use once it is finished.
    assert {path.name for path in out.glob("runs/*/*")} == {"log.csv"}


def test_tables_say_what_the_rows_say(undisturbed: Path) -> None:
    with (undisturbed / "out" / "factors.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    means = [float(row["mean_auc"]) for row in table]
    assert means == sorted(means, reverse=True)
    auc_of = {
        tuple(row[name] for name in ("backbone", "head", "batch_size", "optimiser")): row["auc"] for row in rows_of(undisturbed)
    }
    for row in table:
        key = tuple(row[name] for name in ("backbone", "head", "batch_size", "optimiser"))
        assert float(row["mean_auc"]) == float(auc_of[key])
        assert (row["runs"], row["failed"], row["deviation_auc"]) == ("1", "0", "")
    text = (undisturbed / "out" / "factors.md").read_text(encoding="utf-8")
    assert "4 runs, 4 combinations" in text
    assert "Not for use in diagnostic procedures" in text
    adam = [float(row["auc"]) for row in rows_of(undisturbed) if row["optimiser"] == "adam"]
    assert f"| optimiser | adam | 2 | {np.mean(adam):.3f} | {np.std(adam, ddof=1):.3f} |" in text


@pytest.mark.slow
def test_a_study_killed_at_a_random_step_ends_with_the_same_rows(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    study_file(tmp_path)
    kill_at = int(np.random.default_rng().integers(1, RUNS * (STEPS_OF_A_RUN + 2)))
    code = f"""
from pathlib import Path
from tests.training.studies.tiny import run
run(Path({str(tmp_path)!r}), Path({str(data)!r}), kill_at={kill_at})
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    before = numbers(tmp_path) if (tmp_path / "out" / "runs.csv").exists() else []
    assert len(before) == (kill_at - 1) // (STEPS_OF_A_RUN + 2) + (kill_at % (STEPS_OF_A_RUN + 2) == 0), f"killed at {kill_at}"

    done_now = run(tmp_path, data)
    assert len(done_now) == RUNS - len(before)
    assert numbers(tmp_path) == numbers(undisturbed), f"killed at {kill_at}"
    assert numbers(tmp_path)[: len(before)] == before


def test_what_is_finished_is_not_done_again_and_a_subset_can_grow(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    study_file(tmp_path)
    shutil.copytree(undisturbed / "out", tmp_path / "out")
    assert run(tmp_path, data) == []
    assert numbers(tmp_path) == numbers(undisturbed)
    more = Selection(backbones=["TinyA", "TinyB"], batch_sizes=[16], optimisers=["sgd"], repeats=2)
    assert run(tmp_path, data, selection=more) == ["TinyB GAP 16 sgd 1", "TinyA GAP 16 sgd 2", "TinyB GAP 16 sgd 2"]
    assert numbers(tmp_path)[:RUNS] == numbers(undisturbed)
    assert "| TinyA | GAP | 16 | sgd | 2 |" in (tmp_path / "out" / "factors.md").read_text(encoding="utf-8")


def test_a_damaged_state_lets_only_its_run_begin_again(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    study_file(tmp_path)
    state = tmp_path / "out" / "runs" / "TinyA-GAP-8-sgd-1" / "checkpoint.npz"
    state.parent.mkdir(parents=True)
    state.write_bytes(b"cut short")
    run(tmp_path, data, selection=Selection(backbones=["TinyA"], batch_sizes=[8], optimisers=["sgd"]))
    assert numbers(tmp_path) == numbers(undisturbed)[:1]


def test_a_loss_that_runs_away_is_a_failed_run_and_not_the_end(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hepamap.training import batches

    study_file(tmp_path)
    real: Callable[..., Any] = batches.TrainingBatches.__getitem__

    def spoilt(self: Any, index: int) -> Any:
        inputs, targets = real(self, index)
        return inputs, targets * np.float32(np.nan) if len(targets) == 16 else targets

    monkeypatch.setattr(batches.TrainingBatches, "__getitem__", spoilt)
    only = Selection(backbones=["TinyA"], optimisers=["sgd"])
    assert run(tmp_path, data, selection=only) == ["TinyA GAP 8 sgd 1", "TinyA GAP 16 sgd 1"]
    good, failed = rows_of(tmp_path)
    assert (good["status"], failed["status"], failed["auc"]) == ("ok", "failed", "")
    assert "no longer a number" in failed["message"]
    text = (tmp_path / "out" / "factors.md").read_text(encoding="utf-8")
    assert "0 (1 failed)" in text
    assert "- TinyA GAP 16 sgd 1: The loss is no longer a number" in text
    assert (tmp_path / "out" / "factors.png").exists()
    monkeypatch.undo()
    assert run(tmp_path, data, selection=only) == []
    assert run(tmp_path, data, selection=only, retry_failed=True) == ["TinyA GAP 16 sgd 1"]
    assert [row["status"] for row in rows_of(tmp_path)] == ["ok", "ok"]


@pytest.mark.usefixtures("tiny_networks")
def test_a_study_of_sizes_trains_on_as_many_patches_as_it_says(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hepamap.training.fitting import fit as real

    seen: list[tuple[int, int]] = []

    def spy(recipe: Any, splits: Any, *arguments: Any, **more: Any) -> Any:
        seen.append((len(splits["train"]), int(splits["train"].labels.sum())))
        assert (len(splits["val"]), len(splits["test"])) == (16, 20)
        return real(recipe, splits, *arguments, **more)

    monkeypatch.setattr("hepamap.training.studies.training_run.fit", spy)
    path = study_file(tmp_path, text=SIZES)
    study_data_size(path, [data], tmp_path / "out", models_dir=tmp_path)
    assert seen == [(2, 1), (64, 32)]
    assert [(row["patches"], row["repeat"]) for row in rows_of(tmp_path)] == [("2", "1"), ("64", "1")]
    assert all((tmp_path / "out" / f"data-size.{ending}").exists() for ending in ("csv", "md", "png"))


def test_more_patches_hold_those_of_fewer(data: Path) -> None:
    patches = combine([open_dataset(data)], 1.84, 64)["train"]

    def places(count: int, seed: int) -> set[tuple[int, int]]:
        part = drawn(patches, count, seed)
        assert (len(part), int(part.labels.sum())) == (count, count // 2)
        return set(zip(part.shard_of.tolist(), part.row_of.tolist(), strict=True))

    assert places(4, 1) < places(10, 1) < places(60, 1)
    assert places(10, 1) != places(10, 2)
    part = drawn(patches, 10, 1)
    whole = {(s, r): label for s, r, label in zip(patches.shard_of, patches.row_of, patches.labels, strict=True)}
    assert [whole[s, r] for s, r in zip(part.shard_of, part.row_of, strict=True)] == part.labels.tolist()


def test_what_cannot_work_is_refused_before_hours_are_spent(
    data: Path, undisturbed: Path, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_file(tmp_path, ("patch = 64", "patch = 128"))
    with pytest.raises(DatasetInvalidError, match="needs 128 px"):
        run(tmp_path, data)
    study_file(tmp_path, ("train = 60", "train = 82"))
    with pytest.raises(PatchesTooFewError, match=r"41 patches of each class in the split “train”.*40 of tumour"):
        run(tmp_path, data)
    build_dataset(cohort, tmp_path / "no-test", DatasetSpec(1.84, 64, {"train": 40, "val": 10}))
    study_file(tmp_path)
    with pytest.raises(PatchesTooFewError, match="split “test”"):
        run(tmp_path, tmp_path / "no-test")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100_000_000))
    with pytest.raises(OutputNotWritableError, match=r"may need 0\.5 GB for its state, but 0\.1 GB are free"):
        run(tmp_path, data)
    monkeypatch.undo()
    assert not (tmp_path / "out").exists()


def test_a_folder_is_of_one_study_and_one_process(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed / "out", tmp_path / "out")
    study_file(tmp_path, ("learning_rate = 0.02", "learning_rate = 0.03"))
    with pytest.raises(ResumeImpossibleError, match="another “training”"):
        run(tmp_path, data)
    study_file(tmp_path)
    with exclusive_lock(tmp_path / "out" / ".lock", give_up=lambda: True) as held:
        assert held
        with pytest.raises(StudyBusyError):
            run(tmp_path, data)
    (tmp_path / "out" / "study.json").unlink()
    with pytest.raises(ResumeImpossibleError, match="of which study"):
        run(tmp_path, data)
    assert numbers(tmp_path) == numbers(undisturbed)
