"""What has to be true of the running stack. Each check returns a sentence with what was seen."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import httpx

from tests.api.tus_client import TUS, UPLOADS, metadata
from tests.docker.engine import wait_until
from tests.docker.stack import COMMIT, SERVICES, Stack

_ANALYSES = "/api/v1/analyses"
_LIMITS = {"proxy": 256 * 2**20, "api": 2**30, "worker": 4 * 2**30, "db": 2**30}


def closed_without_key(stack: Stack) -> str:
    """Nobody gets in without a key, and nothing is answered in the clear."""
    with stack.client() as client, stack.client("hm_wrong") as wrong:
        assert client.get("/health/live").status_code == 200
        refused = client.get(_ANALYSES)
        assert (refused.status_code, refused.json()["code"]) == (401, "credentials_missing")
        assert wrong.get(_ANALYSES).json()["code"] == "credentials_invalid"
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as plain:
            plain.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b" 400 " in plain.recv(200).partition(b"\n")[0]
    return "401 without a key and with a wrong one; 400 without TLS"


def hardened(stack: Stack) -> str:
    """Read-only, no capabilities, nobody is root, limits are set, the password is in no environment."""
    password = (stack.folder / "secrets/db_password").read_text()
    for service in SERVICES:
        container = stack.container(service)
        facts: Any = stack.engine.inspect_json(container)
        assert facts["HostConfig"]["ReadonlyRootfs"], service
        assert facts["HostConfig"]["Memory"] == _LIMITS[service], service
        assert password not in json.dumps(facts), service
        status = dict(line.split(":", 1) for line in stack.execute(service, "cat", "/proc/1/status").splitlines() if ":" in line)
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0, service
        assert status["NoNewPrivs"].strip() == "1", service
        assert "0" not in status["Uid"].split(), service
        script = "touch /etc/x 2>&1; test ! -e /etc/x && touch /tmp/x && echo kept"
        assert stack.execute(service, "sh", "-c", script).endswith("kept\n"), service
    for service in ("api", "worker"):
        for folder in ("/slides", "/models"):
            answer = stack.execute(service, "sh", "-c", f"touch {folder}/x 2>&1 || true")
            assert "Read-only file system" in answer, (service, folder, answer)
    return "4 containers: read-only, CapEff = CapBnd = 0, NoNewPrivs, no root, memory limits; slides and models read-only"


def separated(stack: Stack) -> str:
    """The worker and the database reach nobody outside; the proxy does not reach the database."""
    code = (
        "import socket\n"
        "def reach(host, port):\n"
        "    try: socket.create_connection((host, port), 3).close(); return True\n"
        "    except OSError: return False\n"
        "print([reach('db', 5432), reach('172.31.251.2', 8443), reach('deb.debian.org', 80)])"
    )
    assert stack.python("worker", code) == "[True, False, False]"
    assert stack.execute("proxy", "sh", "-c", "getent hosts api >/dev/null && echo api; getent hosts db || true").split() == [
        "api"
    ]
    return "worker reaches the database, not the proxy nor the world; the proxy does not know the database"


def analysed_live(stack: Stack, key: str) -> tuple[str, str]:
    """A slide by the client's own path, followed by events that come while it runs. Returns its id and what was seen."""
    with stack.client(key) as client:
        answer = client.post(_ANALYSES, json={"slide": {"path": "S:\\slides\\slide.tif"}, "model": "hcc-5x"})
        assert answer.status_code == 202, answer.text
        address = answer.headers["location"]
        times: list[tuple[float, str]] = []
        with client.stream("GET", f"{address}/events") as events:
            times = [(time.monotonic(), line[7:]) for line in events.iter_lines() if line.startswith("event: ")]
        analysis = client.get(address).json()
        assert analysis["state"] == "succeeded", analysis
        assert times[-1][1] == "end", times
        progress = [at for at, kind in times if kind == "progress"]
        # Had the proxy kept them back, all would have come at the end, together.
        assert len(progress) >= 3, times
        assert progress[-1] - progress[0] > 1.0, times
        contours = client.get(f"{address}/contours").json()
        assert contours["features"], contours
        assert contours["properties"]["provenance"]["software"]["commit"] == COMMIT
        assert client.get(f"{address}/probability-map?format=npy").content[:6] == b"\x93NUMPY"
    seen = f"{len(progress)} events of progress over {progress[-1] - progress[0]:.1f} s, {len(contours['features'])} contours"
    return analysis["id"], seen


def uploaded(stack: Stack, key: str, first: str) -> str:
    """A slide of megabytes goes up through the proxy, is cut, goes on, and is the one that was analysed by its path."""
    data = (stack.slides / "slide.tif").read_bytes()
    assert len(data) > 2 * 2**20, "smaller than nginx's usual limit"
    half = len(data) // 2
    with stack.client(key) as client:
        headers = {**TUS, "Upload-Length": str(len(data)), "Upload-Metadata": metadata(filename="slide.tif")}
        begun = client.post(UPLOADS, headers=headers)
        assert begun.status_code == 201, begun.text
        address = begun.headers["location"]
        _send_and_vanish(stack, key, address, data[:half], len(data))
        head = TUS

        def offset() -> int:
            response = client.head(address, headers=head)
            return int(response.headers["upload-offset"]) if response.status_code == 200 else 0

        # What the proxy had held back until all was there, the server would never have seen.
        wait_until(lambda: offset() > 0, 30, "nothing of a cut upload has reached the server")
        kept = offset()
        kind = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(kept)}
        sent = client.patch(address, content=data[kept:], headers={**TUS, **kind})
        assert sent.status_code == 204, sent.text
        body = {"slide": {"upload": address.rpartition("/")[2]}, "model": "hcc-5x"}
        answer = client.post(_ANALYSES, json=body, headers={"Prefer": "wait=50"})
        assert answer.json()["state"] == "succeeded", answer.text
        pair = [client.get(f"{_ANALYSES}/{name}/contours").json()["features"] for name in (first, answer.json()["id"])]
        assert pair[0] == pair[1]
    return f"{len(data) / 1e6:.1f} MB, cut after {kept / 1e6:.1f} MB and continued; same contours as by its path"


def _send_and_vanish(stack: Stack, key: str, address: str, data: bytes, length: int) -> None:
    with stack.client() as client:
        url = client.base_url.join(address)
        context = ssl.create_default_context(cafile=str(stack.folder / "secrets/tls.crt"))
        connection = socket.create_connection((url.host, url.port or 0))
    with context.wrap_socket(connection, server_hostname=url.host) as sender:
        lines = [
            f"PATCH {url.path} HTTP/1.1",
            f"Host: {url.host}:{url.port}",
            f"Authorization: Bearer {key}",
            "Tus-Resumable: 1.0.0",
            "Upload-Offset: 0",
            "Content-Type: application/offset+octet-stream",
            f"Content-Length: {length}",
        ]
        sender.sendall("\r\n".join([*lines, "", ""]).encode() + data)
        time.sleep(2)


def addresses_believed(stack: Stack) -> str:
    """Wrong keys are counted per address, as the proxy saw it and not as the client says."""
    code = 0
    for number in range(700):
        with_other = {"X-Forwarded-For": f"10.0.{number // 250}.{number % 250}"}
        if number == 0:
            client = stack.client("hm_wrong")
        code = client.get(_ANALYSES, headers=with_other).status_code
        if code == 429:
            break
    client.close()
    assert code == 429, f"never limited: {code}"
    curl = [
        "curl",
        "-sk",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-H",
        "X-API-Key: hm_wrong",
        f"https://127.0.0.1:8443{_ANALYSES}",
    ]
    assert stack.execute("proxy", *curl) == "401", "another address was limited too"
    return f"429 after {number + 1} wrong keys with invented addresses; another address still gets 401"


def survives_kills(stack: Stack, key: str, first: str) -> str:
    """`kill -9` of every service: it comes back by itself, and an analysis that ran is finished."""
    with stack.client(key) as client:
        body = {"slide": {"path": "/slides/slide.tif"}, "model": "hcc-5x", "stride": 32}
        address = client.post(_ANALYSES, json=body).headers["location"]
        wait_until(lambda: client.get(address).json()["progress"]["done"] > 0, 120, "the analysis does not begin")
    seen = []
    for service in ("worker", "db", "api", "proxy"):
        container = stack.container(service)
        # What ends by a user's command stays ended; a process that dies does not.
        os.kill(int(stack.engine.inspect(container, "{{.State.Pid}}")), signal.SIGKILL)
        restarted = f"{service} is not started again"
        wait_until(lambda name=container: int(stack.engine.inspect(name, "{{.RestartCount}}")) >= 1, 60, restarted)  # type: ignore[misc]
        seen.append(f"{service} {stack.wait_ready():.1f} s")

    def finished() -> bool:
        try:
            with stack.client(key) as client:
                return client.get(address).json()["finished_at"] is not None
        except httpx.TransportError:
            return False

    wait_until(finished, 600, "the analysis that was running does not finish")
    with stack.client(key) as client:
        assert client.get(address).json()["state"] == "succeeded"
        assert client.get(f"{_ANALYSES}/{first}/contours").json()["features"]
    return "ready again after " + ", ".join(seen) + "; the analysis that ran was finished"


def restored(stack: Stack, key: str, first: str, backup: Path) -> str:
    """Backup, everything gone, restore: results, keys and audit trail are there."""
    with stack.client(key) as client:
        before = client.get(f"{_ANALYSES}/{first}/contours").json()
    stack.script("backup.sh", str(backup))
    stack.compose("down", "-v", "-t", "20")
    left = stack.engine.podman("volume", "ls", "-q").split()
    assert left == [], left
    stack.script("restore.sh", str(backup))
    took = stack.wait_ready()
    with stack.client(key) as client:
        assert client.get(f"{_ANALYSES}/{first}/contours").json() == before
    verified = stack.execute("api", "hepamap", "audit", "verify")
    sizes = sum(file.stat().st_size for file in backup.iterdir())
    return (
        f"backup of {sizes / 1e6:.1f} MB; volumes removed; restored, ready after {took:.1f} s; same contours; {verified.strip()}"
    )
