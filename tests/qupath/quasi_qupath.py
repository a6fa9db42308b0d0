"""The script in a real Groovy, with a stand-in for QuPath around it: one Java process for all cases."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

SCRIPT = Path(__file__).parents[2] / "qupath_scripts" / "Detect tumor.groovy"
STAND_IN = Path(__file__).parent / "stand_in"

# Groovy 2.4 calls by reflection, also what the modules of newer Javas keep to themselves; QuPath's Groovy 4 needs none of it.
_OPEN_FOR_OLD_GROOVY = [
    f"--add-opens={name}=ALL-UNNAMED"
    for name in (
        "java.base/java.lang",
        "java.base/java.io",
        "java.base/java.net",
        "java.base/java.util",
        "java.base/java.util.concurrent",
        "java.base/sun.nio.fs",
        "java.net.http/java.net.http",
        "java.net.http/jdk.internal.net.http",
    )
]


def groovy_jars() -> list[Path]:
    """HEPAMAP_TEST_GROOVY (a folder of jars), else the Debian package; empty where there is neither."""
    folder = os.environ.get("HEPAMAP_TEST_GROOVY")
    if folder:
        return sorted(Path(folder).glob("groovy*.jar"))
    debian = Path("/usr/share/java/groovy-all.jar")
    return [debian] if debian.exists() else []


def why_not() -> str | None:
    """Why the script cannot be run here."""
    if shutil.which("java") is None:
        return "java is not installed (apt-get install groovy)"
    if not groovy_jars():
        return "groovy is not installed (apt-get install groovy)"
    return None


def with_settings(script: str, settings: Mapping[str, str]) -> str:
    """The script as its user edits it: each setting gets another value, written in Groovy."""
    for name, value in settings.items():
        line = re.search(rf"(?m)^@Field .*\b{name} = (.*)$", script)
        assert line is not None, name
        script = script[: line.start(1)] + value + script[line.end(1) :]
    return script


class QuasiQuPath:
    """The Java process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        jars = groovy_jars()
        flags = [] if any(jar.name.startswith("groovy-4") for jar in jars) else _OPEN_FOR_OLD_GROOVY
        path = os.pathsep.join(str(place) for place in [*jars, STAND_IN])
        command = ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", *flags, "-cp", path]
        # JAVA_TOOL_OPTIONS and http_proxy of the machine must not change what is tested.
        clean = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "JAVA_HOME", "TMPDIR")}
        self._process = subprocess.Popen(
            [*command, "groovy.ui.GroovyMain", str(STAND_IN / "Driver.groovy")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**clean, **environment},
        )

    def run(self, settings: Mapping[str, str], case: Mapping[str, Any]) -> dict[str, Any]:
        """Run the script once."""
        script = with_settings(SCRIPT.read_text(encoding="utf-8"), settings)
        stdin, stdout = self._pipes()
        stdin.write(json.dumps({"script": script, **case}).encode() + b"\n")
        stdin.flush()
        line = stdout.readline()
        assert line, "the Java process ended"
        outcome: dict[str, Any] = json.loads(line)
        assert "broken" not in outcome, outcome
        return outcome

    def close(self) -> None:
        stdin, stdout = self._pipes()
        stdin.close()
        self._process.terminate()
        self._process.wait(10)
        stdout.close()

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout
