from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hepamap.maps import Piece
from hepamap.worker.checkpoint import FolderCheckpoint

KEY = "a" * 64
VALUES = np.array([[0.25, np.nan], [1.0, 0.5]], np.float32)
PIECE = Piece(VALUES, 2**40 + 1, 17)


def test_a_piece_comes_back_bit_for_bit(tmp_path: Path) -> None:
    FolderCheckpoint(tmp_path, KEY).store("r12", PIECE)
    again = FolderCheckpoint(tmp_path, KEY).load("r12")
    assert again is not None
    assert again.values.tobytes() == VALUES.tobytes()
    assert again.values.shape == VALUES.shape
    assert again.values.dtype == np.float32
    assert (again.tissue_pixels, again.he_pixels) == (2**40 + 1, 17)


def test_what_was_not_stored_is_not_there(tmp_path: Path) -> None:
    checkpoint = FolderCheckpoint(tmp_path, KEY)
    assert checkpoint.load("r0") is None
    checkpoint.store("r0", PIECE)
    assert checkpoint.load("r1") is None


def test_each_piece_that_was_not_there_is_told_of_once(tmp_path: Path) -> None:
    told: list[str] = []
    checkpoint = FolderCheckpoint(tmp_path, KEY, lambda: told.append("kept"))
    checkpoint.store("r0", PIECE)
    checkpoint.store("r1", PIECE)
    assert told == ["kept"] * 2
    checkpoint.store("r1", PIECE)
    assert told == ["kept"] * 2


def test_another_question_never_reads_it(tmp_path: Path) -> None:
    FolderCheckpoint(tmp_path, KEY).store("r0", PIECE)
    assert FolderCheckpoint(tmp_path, "b" * 64).load("r0") is None


def test_all_of_it_goes_and_nothing_of_another_question(tmp_path: Path) -> None:
    one, other = FolderCheckpoint(tmp_path, KEY), FolderCheckpoint(tmp_path, "b" * 64)
    one.store("r0", PIECE)
    other.store("r0", PIECE)
    one.discard()
    one.discard()
    assert one.load("r0") is None
    assert other.load("r0") is not None
    assert [path.name for path in tmp_path.iterdir()] == ["b" * 64]


@pytest.mark.parametrize("damage", [b"", b"nonsense", "half", "pickle", "other type", "no counts"])
def test_a_damaged_piece_counts_as_none(tmp_path: Path, damage: bytes | str) -> None:
    checkpoint = FolderCheckpoint(tmp_path, KEY)
    checkpoint.store("r0", PIECE)
    (path,) = (tmp_path / KEY).iterdir()
    if damage == "half":
        path.write_bytes(path.read_bytes()[:-5])
    elif damage == "pickle":
        np.save(path, np.array([{"code": 1}]), allow_pickle=True)
    elif damage == "other type":
        with path.open("wb") as file:
            np.save(file, VALUES.astype(np.float64))
            np.save(file, np.array([2, 1]))
    elif damage == "no counts":  # as earlier versions wrote them
        np.save(path, VALUES)
    else:
        assert isinstance(damage, bytes)
        path.write_bytes(damage)
    assert checkpoint.load("r0") is None
    checkpoint.store("r0", PIECE)
    assert checkpoint.load("r0") is not None


@pytest.mark.parametrize("name", ["", "../r0", "a/b", ".hidden", "x" * 200])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        FolderCheckpoint(tmp_path, KEY).store(name, PIECE)
    with pytest.raises(ValueError, match="no name"):
        FolderCheckpoint(tmp_path, name)


def test_a_place_that_takes_nothing_costs_only_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    checkpoint = FolderCheckpoint(tmp_path / "file", KEY)
    checkpoint.store("r0", PIECE)
    assert checkpoint.load("r0") is None


# Writes piece after piece, says each one that is stored, and is killed inside the write of another by the system call named.
KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from hepamap.maps import Piece
from hepamap.worker.checkpoint import FolderCheckpoint

checkpoint = FolderCheckpoint(Path(sys.argv[1]), sys.argv[2])
def values(number):
    return Piece(np.full((300, 70), number, np.float32), number, 0)
for number in range(3):
    checkpoint.store(f"r{number}", values(number))
real = {"save": np.save, "fsync": os.fsync, "replace": Path.replace}
def die(*_args, **_kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
def half_save(file, array, **_kwargs):
    whole = __import__("io").BytesIO()
    real["save"](whole, array)
    file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
    file.flush()
    die()
where = sys.argv[3]
if where == "save":
    np.save = half_save
elif where == "fsync":
    os.fsync = die
else:
    Path.replace = die
checkpoint.store("r1", values(100))  # over a piece that is there
checkpoint.store("r3", values(3))
"""


@pytest.mark.parametrize("where", ["save", "fsync", "replace"])
def test_a_kill_in_the_middle_of_a_write_leaves_whole_pieces_only(tmp_path: Path, where: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), KEY, where], check=False, env=os.environ)
    assert done.returncode == -9
    checkpoint = FolderCheckpoint(tmp_path, KEY)
    assert checkpoint.load("r3") is None
    for number in range(3):
        found = checkpoint.load(f"r{number}")
        assert found is not None
        assert np.array_equal(found.values, np.full((300, 70), number, np.float32))
        assert found.tissue_pixels == number
    checkpoint.discard()
    assert list(tmp_path.iterdir()) == []
