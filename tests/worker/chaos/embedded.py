"""The embedded form: `hepamap serve` with SQLite and its own worker, which makes maps in pieces; it calls back who asked.

The server, the worker, or both with all that they have started are killed, also while they take requests, store pieces of
maps, and deliver callbacks.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import psutil
from sqlalchemy import func, select

from hepamap.delivery.outbox import DeliveryState
from hepamap.delivery.tables import DeliveryRow
from hepamap.jobs.database import connect
from hepamap.jobs.store import JobStore
from hepamap.settings import Settings
from tests.conftest import write_tiff_slide
from tests.delivery.receiver import Receiver, receiving
from tests.worker.chaos.embedded_counts import MAP, PIECES, SECRET, Counts, Seen, counted, wants_callback
from tests.worker.conftest import wait_for
from tests.worker.fleet import Fleet, fleet_settings

_SERVER = [sys.executable, "-m", "tests.worker.mapping_server", "serve"]
_SLIDES = 5
_JOB_S = 0.6
"""A job undisturbed."""
_LEASE_S = 120.0
"""As in the server: after this time it sends again what a killed one had in hand."""
_PATIENCE_S = 60.0
"""For so long nothing at all may happen, besides."""


def embedded_settings(folder: Path) -> Settings:
    """Settings of a small site that calls back."""
    others = {
        "callback_allow": ("127.0.0.0/8",),
        "callback_timeout_s": 2.0,
        "worker_restart_delay_s": 0.1,
        "worker_restart_delay_max_s": 0.5,
    }
    settings = fleet_settings(folder).model_copy(update=others)
    settings.callback_secrets_dir.mkdir(parents=True)
    (settings.callback_secrets_dir / "default").write_bytes(SECRET)
    return settings


def chaos(settings: Settings, *, jobs: int, kills: int, seed: int, lease_s: float = _LEASE_S, amid_maps: bool = False) -> Counts:
    """Ask for `jobs` analyses while processes are killed, and wait for the answers and the callbacks.

    Args:
        settings: of the site, as `embedded_settings` makes them.
        jobs: how many.
        kills: how many.
        seed: which moments, and which processes.
        lease_s: after what time the server sends again what a killed one had in hand.
        amid_maps: kill only while a map is made that has some pieces already, so that a few kills suffice to hit any.
    """
    rng = random.Random(seed)
    started = time.monotonic()
    slides = [_slide(settings, number) for number in range(_SLIDES)]
    with receiving(204) as receiver:
        # Long enough that some are on the line when the server is killed.
        receiver.pause_s = 0.3
        run = _Run(settings, slides, receiver, lease_s)
        try:
            asking = threading.Thread(target=run.ask, args=(jobs,))
            asking.start()
            for _ in range(kills):
                time.sleep(rng.uniform(0.2, 1.8) * max(0.5, jobs * _JOB_S / kills))
                if amid_maps:
                    wait_for(run.is_mapping, 60)
                run.kill(rng)
            asking.join()
            run.wait(lease_s + _PATIENCE_S)
            analyses = run.fleet.analyses()
        finally:
            left = run.stop()
    seen = Seen(
        asked=jobs,
        accepted=run.accepted,
        analyses=analyses,
        requests=receiver.requests,
        kills=dict(run.kills),
        kills_amid=dict(run.kills_amid),
        processes_left=left,
        seconds=round(time.monotonic() - started, 1),
    )
    return counted(settings, slides, seen)


def _slide(settings: Settings, number: int) -> Path:
    """A slide that makes a tall map of some pieces above each other, other than those of the other slides."""
    squares = np.random.default_rng(number).integers(60, 190, (16 * PIECES, 3, 3), dtype=np.uint8)
    image = np.kron(squares, np.ones((64, 64, 1), np.uint8))
    return write_tiff_slide(settings.slide_roots[0] / f"tall-{number}.tif", image, 1.84)


class _Run:
    """The server, who asks it, who is called back by it, and who kills it."""

    def __init__(self, settings: Settings, slides: list[Path], receiver: Receiver, lease_s: float) -> None:
        self._settings = settings
        self._slides = slides
        self._receiver = receiver
        self._started: set[psutil.Process] = set()
        self._killed_at = 0.0
        self.fleet = Fleet(settings, [_SERVER], DELIVERY_LEASE_S=str(lease_s))
        self.accepted: dict[int, str] = {}
        """Number of each question, and the id of the analysis that was the answer."""
        self.kills: Counter[str] = Counter()
        self.kills_amid: Counter[str] = Counter(maps=0, callbacks=0)

    def ask(self, jobs: int) -> None:
        """Ask one question after the other, so slowly that also the last ones fall among the kills."""
        for number in range(jobs):
            slide = self._slides[number % len(self._slides)]
            callback = {"callback": {"url": self._receiver.url}} if wants_callback(number) else {}
            self.accepted[number] = self.fleet.ask(number, slide={"path": str(slide)}, **MAP, **callback)["id"]
            time.sleep(_JOB_S / 2)

    def kill(self, rng: random.Random) -> None:
        """Kill the server, its worker, or all at once; what the moment was like is counted too."""
        children = self._children()
        workers = [child for child in children if _is_worker(child)]
        whom = rng.choice(["server", "server", "worker", "worker", "all"])
        if whom == "worker" and not workers:
            whom = "server"  # which is about to start one again
        self.kills[whom] += 1
        self.kills_amid["maps"] += self.is_mapping()
        self.kills_amid["callbacks"] += whom != "worker" and self._receiver.thinking > 0
        self._killed_at = time.time()
        if whom == "server":
            self.fleet.kill(0)
            return
        if whom == "all":
            self.fleet.kill(0)
        for process in workers if whom == "worker" else children:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def is_mapping(self) -> bool:
        """Whether pieces of an unfinished map were stored since the last kill."""
        with suppress(FileNotFoundError):  # finished in this moment
            return any(path.stat().st_mtime > self._killed_at for path in self._settings.scratch_dir.glob("*/*.npy"))
        return False

    def _children(self) -> list[psutil.Process]:
        try:
            children = psutil.Process(self.fleet.processes[0].pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self._started |= set(children)
        return children

    def wait(self, patience_s: float) -> None:
        """Wait until all has ended and all is delivered, or nothing has happened for so long."""
        before, since = (-1, -1), time.monotonic()
        while (now := (self._unfinished(), self._undelivered())) != (0, 0):
            if now != before:
                before, since = now, time.monotonic()
            if time.monotonic() - since > patience_s:
                return
            time.sleep(0.5)

    def _unfinished(self) -> int:
        return sum(analysis["finished_at"] is None for analysis in self.fleet.analyses())

    def _undelivered(self) -> int:
        """How many callbacks the server does not know to have arrived."""
        pending = DeliveryRow.state == DeliveryState.PENDING.value
        with closing(JobStore(connect(self._settings.database))) as store, store.reading() as session:
            return session.scalar(select(func.count()).select_from(DeliveryRow).where(pending)) or 0

    def stop(self) -> int:
        """Stop the server politely; how many processes are left of all that were started."""
        self._children()
        self.fleet.stop()
        end = time.monotonic() + 15
        while (left := sum(_lives(process) for process in self._started)) and time.monotonic() < end:
            time.sleep(0.1)
        return left


def _is_worker(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return _lives(process) and "tests.worker.mapping_worker" in process.cmdline()
    return False


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
