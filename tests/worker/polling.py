"""How quickly the server answers while a slide runs and many clients poll.

    python -m tests.worker.polling                    50 clients, 60 s: p50 and p99 of GET /health/live and of a poll
    python -m tests.worker.polling --keys             the same with a key for each client, limits and audit trail

A real server with its real worker, which runs a real network (random weights) over a slide again and again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import numpy as np

from hepamap.access.keys import KeyStore
from hepamap.access.scopes import Scope
from hepamap.cli.keys import opened
from hepamap.settings import Settings
from tests.conftest import write_tiff_slide
from tests.packs import write_network_pack
from tests.ports import free_port
from tests.worker.conftest import Server, wait_for

_POLL_EVERY_S = 1.0
_LIVE_EVERY_S = 0.05


def _site(folder: Path, *, keys: bool) -> tuple[Settings, Path]:
    (folder / "slides").mkdir()
    write_network_pack(folder / "models", "tiny-5x")
    noise = np.random.default_rng(3).integers(90, 190, (6000, 8000, 3), dtype=np.uint8)
    slide = write_tiff_slide(folder / "slides" / "slide.tif", noise, 0.46)
    settings = Settings(
        data_dir=folder / "data",
        models_dir=folder / "models",
        default_model="tiny-5x",
        slide_roots=(folder / "slides",),
        port=free_port(),
        min_free_bytes=0,
        access="keys" if keys else "off",
    )
    return settings, slide


def _headers(settings: Settings, clients: int) -> list[dict[str, str]]:
    """How each client shows who it is."""
    if settings.access == "off":
        return [{}] * clients
    with opened(settings.data_dir, make=True) as engine:
        made = [KeyStore(engine).create(f"client {number}", [Scope.READ, Scope.ANALYSE], None) for number in range(clients)]
    return [{"Authorization": f"Bearer {key.secret}"} for key in made]


def _poll(
    base: str, path: str, headers: dict[str, str], every_s: float, end: float, times: list[float], wrong: list[int]
) -> None:
    with httpx.Client(base_url=base, headers=headers, trust_env=False, timeout=30) as client:
        while time.monotonic() < end:
            started = time.perf_counter()
            status = client.get(path).status_code
            times.append(time.perf_counter() - started)
            if status != 200:
                wrong.append(status)
            time.sleep(every_s)


def measure(folder: Path, *, clients: int, seconds: float, keys: bool) -> dict[str, object]:
    """The times of all requests, summed up, in ms."""
    settings, slide = _site(folder, keys=keys)
    headers = _headers(settings, clients)
    server = Server(settings, [sys.executable, "-m", "hepamap", "serve"], folder / "log")
    try:
        server.http.headers.update(headers[0])
        wait_for(server.is_ready, 180)
        work = [server.post(slide, threshold=0.3 + number / 100) for number in range(60)]
        wait_for(lambda: server.get(work[0])["progress"]["done"] > 0, 120)
        end = time.monotonic() + seconds
        live: list[float] = []
        polls: list[float] = []
        wrong: list[int] = []
        base = str(server.http.base_url)
        threads = [threading.Thread(target=_poll, args=(base, "/health/live", {}, _LIVE_EVERY_S, end, live, wrong))]
        for number in range(clients):
            path = work[number % len(work)]["links"]["self"]
            threads.append(threading.Thread(target=_poll, args=(base, path, headers[number], _POLL_EVERY_S, end, polls, wrong)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        still_running = any(server.get(analysis)["state"] in ("queued", "running") for analysis in work)
    finally:
        server.stop()
    return {
        "access": settings.access,
        "clients": clients,
        "seconds": seconds,
        "a_slide_ran_all_the_time": still_running,
        "wrong_answers": len(wrong),
        **{
            f"{name}_{what}": value
            for name, times in (("live", live), ("poll", polls))
            for what, value in (
                ("requests", len(times)),
                ("p50_ms", round(float(np.percentile(times, 50)) * 1000, 1)),
                ("p99_ms", round(float(np.percentile(times, 99)) * 1000, 1)),
            )
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--keys", action="store_true", help="with API keys, the limit of requests and the audit trail")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), clients=arguments.clients, seconds=arguments.seconds, keys=arguments.keys)
    print(json.dumps(found))  # noqa: T201
    return (
        0 if found["a_slide_ran_all_the_time"] and found["wrong_answers"] == 0 and float(str(found["live_p99_ms"])) < 100 else 1
    )


if __name__ == "__main__":
    raise SystemExit(main())
