from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hepamap import RESEARCH_USE_ONLY, __version__
from hepamap.qupath_client import sources as sources_module
from hepamap.qupath_client.assembly import assemble, require_address
from hepamap.qupath_client.errors import ClientSourcesInvalidError, ClientSourcesMissingError, ServerAddressInvalidError
from hepamap.qupath_client.sources import Source, read_sources, sources_folder

ROOT = Path(__file__).resolve().parents[2]

SETTINGS = Source(
    "10_settings.groovy",
    """/*
 * Settings.
 */
import groovy.transform.Field

import java.util.List as Many

@Field final String SERVER_URL = ''  // filled in by the server
@Field final int POLL_MS = 500
""",
)
HTTP = Source(
    "20_http.groovy",
    """// Talks to the server.
// In plain HTTP/1.1.

import static java.lang.Math.max;
import java.net.http.HttpClient
import groovy.transform.Field
import javafx.scene.*

class Http {
    String text = '''
import this.is.not.one
'''
}
""",
)

TOP = f"""// hepamap {__version__} for QuPath. {RESEARCH_USE_ONLY}
// Put together from the files named below: change those, not this one.

import groovy.transform.Field
import java.net.http.HttpClient
import java.util.List as Many
import javafx.scene.*
import static java.lang.Math.max
"""


def mark(name: str) -> str:
    return f"// ---- {name} " + "-" * (110 - len(name))


WHOLE = f"""{TOP}
{mark("10_settings.groovy")}
/*
 * Settings.
 */
@Field final String SERVER_URL = 'http://lab:8000'  // filled in by the server
@Field final int POLL_MS = 500

{mark("20_http.groovy")}
// Talks to the server.
// In plain HTTP/1.1.
class Http {{
    String text = '''
import this.is.not.one
'''
}}
"""


def test_the_script_is_the_one_that_was_made_by_hand() -> None:
    assert assemble([SETTINGS, HTTP], "http://lab:8000/") == WHOLE
    assert assemble([SETTINGS, HTTP], "") == WHOLE.replace("'http://lab:8000'", "''")


def test_line_ends_of_windows_make_the_same_script() -> None:
    windows = [Source(source.name, source.text.replace("\n", "\r\n")) for source in (SETTINGS, HTTP)]
    assert assemble(windows, "http://lab:8000") == WHOLE


def test_a_source_may_have_neither_comment_nor_imports() -> None:
    bare = Source("30_end.groovy", "\n\nrun()\n")
    assert assemble([SETTINGS, HTTP, bare], "http://lab:8000") == f"{WHOLE}\n{mark(bare.name)}\nrun()\n"


def test_one_short_name_cannot_mean_two_things() -> None:
    one, other = Source("20_a.groovy", "import java.util.List\n"), Source("30_b.groovy", "import java.awt.List\n")
    with pytest.raises(ClientSourcesInvalidError, match=r"java\.util\.List in 20_a\.groovy and java\.awt\.List in 30_b\.groovy"):
        assemble([SETTINGS, one, other], "")
    renamed = Source("30_b.groovy", "import java.awt.List as AwtList\nimport static java.util.List.of\nimport java.awt.*\n")
    assert "import java.awt.List as AwtList\n" in assemble([SETTINGS, one, renamed], "")


@pytest.mark.parametrize("sources", [[HTTP], [SETTINGS, SETTINGS]])
def test_the_address_has_just_one_place(sources: list[Source]) -> None:
    with pytest.raises(ClientSourcesInvalidError, match=r"is there [02] times"):
        assemble(sources, "http://lab")


def test_a_package_is_refused() -> None:
    with pytest.raises(ClientSourcesInvalidError, match=r"20_a\.groovy names a package"):
        assemble([SETTINGS, Source("20_a.groovy", "// A.\npackage a\n")], "")


@pytest.mark.parametrize(
    "address",
    ["http://lab", "https://lab.hospital.org:8443", "http://127.0.0.1:8000", "http://[::1]:8000", "http://lab/hepamap"],
)
def test_addresses_that_are_some(address: str) -> None:
    assert require_address(address) == address
    assert require_address(f"{address}/") == address


@pytest.mark.parametrize(
    "address",
    [
        *("lab:8000", "ftp://lab", "http://", "http://:8000", "http://lab:port", "http://lab:0", "http://lab:99999"),
        *(
            "http://lab'; evil() //",
            "http://lab\\u0027",
            "http://lab\nevil()",
            "http://läb",
            "http://user@lab",
            "http://lab?x=$y",
        ),
    ],
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ServerAddressInvalidError):
        assemble([SETTINGS], address)


def test_sources_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("100_last.groovy", "20_http.groovy", "5_first.groovy", "README.md"):
        (tmp_path / name).write_text(f"// {name}\n")
    assert [source.name for source in read_sources(tmp_path)] == ["5_first.groovy", "20_http.groovy", "100_last.groovy"]


@pytest.mark.parametrize("name", ["nothing", "."])
def test_no_sources_is_an_error_that_says_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(ClientSourcesMissingError, match="no sources of the QuPath client"):
        read_sources(tmp_path / name)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["settings.groovy"], "does not begin with a number"),
        (["10_a.groovy", "010_b.groovy"], "have the same number"),
        (["10_a b.groovy"], "does not begin with a number"),
    ],
)
def test_names_that_have_no_place_in_the_order(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ClientSourcesInvalidError, match=message):
        read_sources(tmp_path)


def test_a_source_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "10_a.groovy").write_bytes(b"\xff\xfe")
    with pytest.raises(ClientSourcesInvalidError, match="cannot be read"):
        read_sources(tmp_path)


def test_sources_are_found_in_a_checkout_and_in_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sources_folder() == ROOT / "qupath_scripts" / "hepamap"
    package = tmp_path / "site-packages" / "hepamap" / "qupath_client"
    (package / "sources").mkdir(parents=True)
    monkeypatch.setattr(sources_module, "__file__", str(package / "sources.py"))
    assert sources_folder() == package / "sources"


def test_a_wheel_has_all_sources(tmp_path: Path) -> None:
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    made = subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, check=True, capture_output=True, text=True)
    with zipfile.ZipFile(tmp_path / made.stdout.strip().splitlines()[-1]) as wheel:
        packed = {name for name in wheel.namelist() if name.startswith("hepamap/qupath_client/sources/")}
    own = {path.name for path in (ROOT / "qupath_scripts" / "hepamap").iterdir()}
    assert packed == {f"hepamap/qupath_client/sources/{name}" for name in own}
