"""The client in a real Groovy and a real JavaFX, with a stand-in for QuPath around it: one Java process for all cases."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from hepamap.qupath_client.assembly import assemble
from hepamap.qupath_client.sources import read_sources, sources_folder
from tests.required import missing

STAND_IN = Path(__file__).parent / "stand_in"
_JAVAFX = Path("/usr/share/openjfx/lib")
_JAVAFX_PARTS = ("base", "graphics", "controls", "swing")

# Groovy 2.4 calls by reflection, also what the modules of newer Javas keep to themselves; QuPath's Groovy 4 needs none of it.
_OPEN_FOR_OLD_GROOVY = [
    f"--add-opens={name}=ALL-UNNAMED"
    for name in (
        "java.base/java.lang",
        "java.base/java.io",
        "java.base/java.net",
        "java.base/java.nio.channels",
        "java.base/java.security",
        "java.base/java.util",
        "java.base/java.util.concurrent",
        "java.base/java.util.stream",
        "java.base/java.util.zip",
        "java.base/sun.nio.ch",
        "java.base/sun.nio.fs",
        "java.base/sun.security.ssl",
        "java.base/sun.security.x509",
        "java.base/sun.security.provider",
        "java.desktop/java.awt",
        "java.desktop/java.awt.image",
        "java.desktop/sun.awt.image",
        "java.desktop/sun.java2d",
        "java.net.http/java.net.http",
        "java.net.http/jdk.internal.net.http",
    )
]


@functools.cache
def client_script() -> str:
    """The client as users get it, without a server's address."""
    return assemble(read_sources(sources_folder()), "")


def groovy_jars() -> list[Path]:
    """HEPAMAP_TEST_GROOVY (a folder of jars), else the Debian package; empty where there is neither."""
    folder = os.environ.get("HEPAMAP_TEST_GROOVY")
    if folder:
        return sorted(Path(folder).glob("groovy*.jar"))
    debian = Path("/usr/share/java/groovy-all.jar")
    return [debian] if debian.exists() else []


def javafx_jars() -> list[Path]:
    """JavaFX of the Debian package; empty where it is not installed."""
    jars = [_JAVAFX / f"javafx.{part}.jar" for part in _JAVAFX_PARTS]
    return jars if all(jar.exists() for jar in jars) else []


def require_java() -> None:
    """End the test where the script cannot be run."""
    if shutil.which("java") is None or not groovy_jars():
        missing("groovy", "java or groovy is not installed (apt-get install groovy)")
    if not javafx_jars() or shutil.which("Xvfb") is None:
        missing("javafx", "JavaFX or a display is not installed (apt-get install openjfx xvfb)")


def with_constants(script: str, constants: Mapping[str, str]) -> str:
    """The script with other values of some constants, written in Groovy: waiting times, mostly."""
    for name, value in constants.items():
        line = re.search(rf"(?m)^ *(?:static .*|final String )\b{name} = ('.*?'|.*?)(?=$|  //)", script)
        assert line is not None, name
        script = script[: line.start(1)] + value + script[line.end(1) :]
    return script


class Display:
    """A screen that nobody sees."""

    def __init__(self) -> None:
        reading, writing = os.pipe()
        command = [
            "setpriv",
            "--pdeathsig",
            "TERM",
            "Xvfb",
            "-displayfd",
            str(writing),
            "-screen",
            "0",
            "1280x900x24",
            "-nolisten",
            "tcp",
        ]
        self._process = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
        os.close(writing)
        with os.fdopen(reading) as said:
            self.name = f":{said.readline().strip()}"
        assert self.name != ":", "Xvfb did not start"

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)


class QuasiQuPath:
    """The Java process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._display = Display()
        jars = groovy_jars()
        flags = [] if any(jar.name.startswith("groovy-4") for jar in jars) else _OPEN_FOR_OLD_GROOVY
        path = os.pathsep.join(str(place) for place in [*jars, *javafx_jars(), STAND_IN])
        command = ["java", "-Xmx768m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dprism.order=sw", *flags]
        command += ["-Djava.library.path=/usr/lib/x86_64-linux-gnu/jni", "-cp", path]
        # JAVA_TOOL_OPTIONS and http_proxy of the machine must not change what is tested.
        clean = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "JAVA_HOME", "TMPDIR")}
        self._process = subprocess.Popen(
            [*command, "groovy.ui.GroovyMain", str(STAND_IN / "Driver.groovy")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**clean, "DISPLAY": self._display.name, **environment},
        )

    def run(self, constants: Mapping[str, str], case: Mapping[str, Any]) -> dict[str, Any]:
        """Run the script once."""
        script = with_constants(client_script(), constants)
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
        self._display.close()

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout
