"""Models: which packs are installed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from hepamap.api.routes.problems import problems
from hepamap.api.schemas import FailureAnswer, ModelAnswer, ModelList
from hepamap.api.services import Services, ServicesOf
from hepamap.errors import ModelError, PackInvalidError
from hepamap.model_pack import ModelPack, find_pack, list_packs

router = APIRouter(prefix="/models", tags=["models"])


@router.get("", responses=problems())
def list_models(services: ServicesOf) -> ModelList:
    """All installed packs, with hashes and operating points."""
    default = _default_name(services)
    broken: list[PackInvalidError] = []
    items = [_answer(pack, default) for pack in list_packs(services.settings.models_dir, broken)]
    failures = [FailureAnswer(code=error.code, message=error.message, cure=error.cure) for error in broken]
    return ModelList(items=items, broken=failures)


@router.get("/{model}", responses=problems(s404="There is no such pack."))
def get_model(
    model: Annotated[str, Path(description="`id` (its newest version) or `id@version`.", examples=["hcc-10x@1.0.0"])],
    services: ServicesOf,
) -> ModelAnswer:
    """One pack."""
    return _answer(find_pack(services.settings.models_dir, model), _default_name(services))


def _default_name(services: Services) -> str | None:
    try:
        return find_pack(services.settings.models_dir, services.settings.default_model).name
    except ModelError:
        return None


def _answer(pack: ModelPack, default: str | None) -> ModelAnswer:
    return ModelAnswer(
        id=pack.manifest.id,
        version=pack.manifest.version,
        name=pack.name,
        default=pack.name == default,
        manifest=pack.manifest.model_dump(mode="json"),
    )
