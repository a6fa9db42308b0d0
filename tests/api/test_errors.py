from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from http import HTTPStatus

import pytest

import hepamap
from hepamap.api import errors as api_errors
from hepamap.api.errors import STATUS, status_of
from hepamap.errors import HepamapError, ModelNotFoundError, RegionEmptyError, SlideDamagedError, SlideNotFoundError

# Training has errors of its own, but no way to a server: neither knows the other.
ELSEWHERE = ("hepamap.benchmark", "hepamap.training", "hepamap.cli", "hepamap.networks", "hepamap.phantom")


def import_everything() -> None:
    """So that every class of errors is known, wherever it is defined."""
    for module in pkgutil.walk_packages(hepamap.__path__, "hepamap."):
        if not module.name.startswith(ELSEWHERE) and not module.name.endswith(("__main__", "migrations.env")):
            importlib.import_module(module.name)


def all_errors(kind: type[HepamapError] = HepamapError) -> Iterator[type[HepamapError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from all_errors(child)


def test_every_error_has_a_status_and_a_code_of_its_own() -> None:
    import_everything()
    kinds = {kind for kind in all_errors() if not kind.__module__.startswith(ELSEWHERE)}
    assert len(kinds) > 35
    for kind in kinds:
        assert 400 <= status_of(kind) < 600
        # Falling back to the root would be a 500 that nobody decided on.
        assert kind is HepamapError or any(ancestor in STATUS for ancestor in kind.__mro__ if ancestor is not HepamapError)
    codes = [kind.code for kind in kinds]
    assert sorted(codes) == sorted(set(codes))


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (SlideDamagedError, HTTPStatus.UNPROCESSABLE_ENTITY),
        (SlideNotFoundError, HTTPStatus.NOT_FOUND),
        (RegionEmptyError, HTTPStatus.UNPROCESSABLE_ENTITY),
        (ModelNotFoundError, HTTPStatus.NOT_FOUND),
        (api_errors.UploadTooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    ],
)
def test_a_class_without_a_row_has_the_status_of_the_nearest_one_above(kind: type[HepamapError], status: HTTPStatus) -> None:
    assert status_of(kind) == status
