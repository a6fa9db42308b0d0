"""An identity goes into the answer to whoever asked, and nowhere else: logs, metrics, audit trail and callbacks are searched."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from hepamap.settings import Settings
from tests.delivery.receiver import receiving
from tests.worker.conftest import SERVER, ServerFactory, wait_for

IDENTITY = {"accession": "MARK-ACC", "specimen": "MARK-SPEC", "block": "MARK-BLOCK", "slide_barcode": "MARK-BARCODE"}
WORKER = Path(__file__).with_name("mapping_worker.py")


def test_marks_of_a_patient_are_in_the_answer_alone(start: ServerFactory, settings: Settings, slide: Path) -> None:
    named = slide.with_name("MARK-DOE-JANE.tif")
    shutil.copyfile(slide, named)
    secrets = settings.data_dir / "callback-secrets"
    secrets.mkdir(parents=True)
    (secrets / "default").write_text("0123456789abcdef" * 4)
    with receiving(200) as receiver:
        told = settings.model_copy(update={"audit": True, "callback_allow": ("127.0.0.0/8",)})
        server = start(told, [sys.executable, "-c", SERVER, str(WORKER)])
        # As a LIS may do that knows no other id.
        server.http.headers["X-Request-ID"] = "MARK-S26-1234"
        hook = f"http://127.0.0.1:{receiver.port}/hook/MARK-PATH?token=MARK-QUERY"
        good = server.post(named, identity=IDENTITY, callback={"url": hook})
        wait_for(lambda: server.get(good)["finished_at"], 60)
        own = good["links"]
        # It is damaged between the question and the work: the worker's error names the file.
        hold = settings.data_dir / "hold"
        hold.touch()
        bad = server.post(named, identity=IDENTITY, threshold=0.6)
        named.write_bytes(named.read_bytes()[: named.stat().st_size // 2])
        hold.unlink()
        wait_for(lambda: server.get(bad)["finished_at"], 60)
        wait_for(lambda: receiver.requests, 30)
        assert server.get(good)["identity"] == IDENTITY
        for path in (own["contours"], own["probability_map"], f"{own['self']}/deliveries", "/api/v1/analyses?state=MARK-STATE"):
            server.http.get(path)
        shutil.copyfile(slide, named)
        assert server.http.post("/api/v1/analyses", json={"identity": {"accession": ["MARK-LIST"]}}).status_code == 422
        metrics = server.http.get("/metrics").text
        trail = subprocess.run(
            [sys.executable, "-m", "hepamap", "audit", "export"],
            env={**os.environ, **told.environment()},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        # Last, an error of the database in the very statement that holds the identity.
        with closing(sqlite3.connect(told.database_path)) as database:
            database.execute("ALTER TABLE jobs RENAME COLUMN priority TO gone")
        failed = server.http.post("/api/v1/analyses", json={"slide": {"path": str(named)}, "identity": IDENTITY})
        assert failed.status_code == 503
        server.stop()
    log = server.log.read_text()
    # The address is what its client gave; the rest of the request is what the server tells.
    ((called, *told_there),) = receiver.requests
    assert called == "/hook/MARK-PATH?token=MARK-QUERY"
    assert '"event": "callback"' in log
    assert "job_failed" in log
    assert "OperationalError" in log
    assert trail.count("create_analysis") >= 2
    assert "hepamap_analyses_finished_total" in metrics
    for place in (log, metrics, trail, failed.text, json.dumps(own), str(told_there)):
        assert "MARK" not in place, place[max(0, place.index("MARK") - 500) :][:900]
