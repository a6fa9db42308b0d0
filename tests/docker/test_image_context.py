"""The wheel of the image is built from what .dockerignore lets through and the Dockerfile copies, and from nothing else."""

from __future__ import annotations

import fnmatch
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.docker.stack import REPOSITORY


def is_sent(path: str, rules: list[str]) -> bool:
    """Whether a path of the checkout gets into the build's context: the last rule that names it, or a folder it is in, counts."""
    sent = True
    parts = path.split("/")
    names = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    for rule in rules:
        pattern = rule.removeprefix("!")
        anywhere = pattern.removeprefix("**/")
        if any(fits(name, pattern) or (anywhere != pattern and fits(name.rpartition("/")[2], anywhere)) for name in names):
            sent = rule.startswith("!")
    return sent


def fits(name: str, pattern: str) -> bool:
    """A `*` of .dockerignore matches within one folder alone."""
    pairs = list(zip(name.split("/"), pattern.split("/"), strict=False))
    return name.count("/") == pattern.count("/") and all(fnmatch.fnmatchcase(part, wanted) for part, wanted in pairs)


def copies(stage: str) -> list[tuple[list[str], str]]:
    """Sources and target of each COPY of a stage that takes them from the context."""
    text = (REPOSITORY / "docker/Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    body = text.partition(f" AS {stage}\n")[2].partition("\nFROM ")[0]
    lines = [line.split()[1:] for line in body.splitlines() if line.startswith("COPY ") and "--from" not in line]
    return [(words[:-1], words[-1]) for words in lines]


def sent_files(source: str) -> list[str]:
    """What .dockerignore lets through of a file or folder of the checkout."""
    rules = [
        line for line in (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] not in ("", "#")
    ]
    place = REPOSITORY / source
    found = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    return [path for path in (one.relative_to(REPOSITORY).as_posix() for one in found) if is_sent(path, rules)]


def lay_out(folder: Path, variant: str = "cpu") -> None:
    """What the stage `build` has in its working folder before it makes the wheel."""
    for sources, target in copies("build"):
        for source in (one.replace("${VARIANT}", variant) for one in sources):
            found = sent_files(source)
            assert found, f"COPY {source}: .dockerignore lets nothing of it through"
            for path in found:
                # Of a folder, COPY takes what is in it; a file goes into a target that ends with a slash.
                inner = path.removeprefix(f"{source}/") if path != source else Path(path).name
                place = folder / target / inner
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(REPOSITORY / path, place)


def wheel_of(source: Path, out: Path) -> set[str]:
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    made = subprocess.run([sys.executable, "-c", build, str(out)], cwd=source, check=False, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    with zipfile.ZipFile(out / made.stdout.strip().splitlines()[-1]) as wheel:
        return set(wheel.namelist())


def test_the_image_gets_the_whole_wheel(tmp_path: Path) -> None:
    for name in ("context", "from-context", "from-checkout"):
        (tmp_path / name).mkdir()
    lay_out(tmp_path / "context")
    packed = wheel_of(tmp_path / "context", tmp_path / "from-context")
    assert packed == wheel_of(REPOSITORY, tmp_path / "from-checkout")
    assert "hepamap/qupath_client/sources/10_settings.groovy" in packed


def test_the_image_gets_the_models_without_their_recipes() -> None:
    ((source, _),) = copies("runtime")
    assert source == ["models"]
    models = sent_files("models")
    assert any(path.endswith(".safetensors") for path in models)
    assert not [path for path in models if path.startswith("models/recipes")]


def test_rules_are_read_as_docker_reads_them() -> None:
    rules = ["*", "!a", "!b/c-*.lock", "**/__pycache__", "a/skip"]
    sent = {name: is_sent(name, rules) for name in ("a/x/y.py", "a/__pycache__/y.pyc", "a/skip/z", "b/c-1.lock", "b/d", "other")}
    assert sent == {
        "a/x/y.py": True,
        "a/__pycache__/y.pyc": False,
        "a/skip/z": False,
        "b/c-1.lock": True,
        "b/d": False,
        "other": False,
    }
