"""`hepamap serve` itself, with the worker of `mapping_worker` beside it."""

from __future__ import annotations

import os
import sys
from functools import partial
from unittest.mock import patch

from hepamap.api import app, serve
from hepamap.cli import main
from hepamap.delivery import outbox

if __name__ == "__main__":
    create_app = partial(app.create_app, worker_command=[sys.executable, "-m", "tests.worker.mapping_worker"])
    # What a killed server had in hand is sent again only after this time: too long for a test of the suite.
    lease_s = float(os.environ.get("DELIVERY_LEASE_S", outbox._LEASE_S))
    with patch.object(serve, "create_app", create_app), patch.object(outbox, "_LEASE_S", lease_s):
        main()
