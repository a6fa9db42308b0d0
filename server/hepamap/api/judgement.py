"""From a request to a stored verdict."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hepamap.api.errors import parse_invalid
from hepamap.api.idempotency import mark
from hepamap.api.services import Services
from hepamap.api.stored import result_of
from hepamap.api.verdict_schemas import VerdictRequest
from hepamap.api.views import chosen_of
from hepamap.jobs.job import Idempotency, Job
from hepamap.results import StoredResult, open_result
from hepamap.spelling import name_key
from hepamap.verdicts.judging import form_opinion, pixel_size_of
from hepamap.verdicts.verdict import ModelFacts, Opinion, SlideFacts, Verdict


def judge(body: bytes, job: Job, services: Services, *, actor: str, idempotency_key: str | None) -> Verdict:
    """Check a verdict, compute its areas and store it.

    Args:
        body: JSON of a `VerdictRequest`.
        job: the analysis.
        services: what the server has.
        actor: who sent it.
        idempotency_key: the client's mark on a request that it may send again.

    Raises:
        HepamapError: whatever is wrong with it.
    """
    try:
        request = VerdictRequest.model_validate_json(body)
    except ValidationError as error:
        raise parse_invalid(error) from error
    idempotency = None if idempotency_key is None else _mark(idempotency_key, actor, job, request)
    repeated = None if idempotency is None else services.verdicts.find_repeated(idempotency)
    if repeated is not None:
        return repeated
    result = result_of(job, services)
    opinion = services.geometers.run(_opinion, result.folder, request, _threshold(request, job, result, services))
    slide, model = _slide_facts(job, result, services), _model_facts(result)
    return services.verdicts.add(job.id, opinion, slide, model, actor=actor, idempotency=idempotency)


def _opinion(folder: Path, request: VerdictRequest, threshold: float) -> Opinion:
    """In a child process: nobody knows beforehand how long mending an outline takes."""
    return form_opinion(
        request.decision,
        open_result(folder),
        threshold=threshold,
        min_area_um2=request.min_area_um2,
        drawn=request.geometry,
        user=request.user,
        reason=request.reason or None,
    )


def _mark(key: str, actor: str, job: Job, request: VerdictRequest) -> Idempotency:
    content = f"{job.id}\n{request.model_dump_json(exclude_unset=True)}"
    return mark(key, actor, hashlib.sha256(content.encode()).hexdigest())


def _threshold(request: VerdictRequest, job: Job, result: StoredResult, services: Services) -> float:
    if request.threshold is not None:
        return request.threshold
    chosen = chosen_of(job, services)
    return float(result.summary["parameters"]["threshold"]) if chosen is None else chosen.threshold


def _slide_facts(job: Job, result: StoredResult, services: Services) -> SlideFacts:
    work = services.store.computation(job.computation_id)
    detection: dict[str, Any] = {} if work is None else work.payload["detection"]
    return SlideFacts(
        fingerprint=job.payload["fingerprint"],
        path=detection.get("slide_path", ""),
        pixel_size=pixel_size_of(result),
        frame=result.frame,
        region_l0=result.summary["parameters"].get("region_l0"),
        case=_case_of(job),
    )


def _case_of(job: Job) -> str | None:
    """What slides of one case share, without saying which case it is to who does not know its number."""
    accession = name_key((job.payload["identity"] or {}).get("accession") or "")
    # In capitals, as most are written: verdicts from before spellings did not matter then have the same case.
    return None if not accession else hashlib.sha256(f"hepamap case {accession.upper()}".encode()).hexdigest()[:16]


def _model_facts(result: StoredResult) -> ModelFacts:
    model = result.summary["provenance"]["model"]
    return ModelFacts(model["id"], model["version"], model["weights_sha256"])
