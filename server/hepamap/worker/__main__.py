"""`python -m hepamap.worker`: the worker that a server starts beside itself; its settings come by the environment."""

from __future__ import annotations

import sys

from hepamap.jobs.processes import configure_logging
from hepamap.settings import Settings
from hepamap.worker.main import run_worker

if __name__ == "__main__":
    configure_logging()
    run_worker(Settings(), owner=sys.stdin.buffer)
