"""All checks of an installation. They change nothing: no folder is made, no schema is brought up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hepamap.access.errors import UnprotectedError
from hepamap.access.protection import require_protected
from hepamap.errors import HepamapError, ModelError, PackInvalidError
from hepamap.model_pack import find_pack, list_packs
from hepamap.operations import database_checks, folder_checks, machine_checks
from hepamap.operations.findings import Finding, broken, ok
from hepamap.settings import Settings

Check = Callable[[Settings], Iterator[Finding]]


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything; a check that fails in a way that nobody foresaw is itself a finding."""
    for name, check in CHECKS.items():
        try:
            yield from check(settings)
        except HepamapError as error:
            yield broken(name, error.message, cure=error.cure)
        except OSError as error:
            yield broken(name, str(error), cure="Check the disk and the permissions of what is named.")


def _models(settings: Settings) -> Iterator[Finding]:
    try:
        default = find_pack(settings.models_dir, settings.default_model)
    except ModelError as error:
        yield broken("models", f"Default model: {error.message}", cure=error.cure)
    else:
        yield ok("models", f"The default model is {default.name}.")
    invalid: list[PackInvalidError] = []
    for pack in list_packs(settings.models_dir, invalid):
        try:
            pack.verify()
        except ModelError as error:
            yield broken("models", error.message, cure=error.cure)
        else:
            yield ok("models", f"{pack.name} is whole, sha256 {pack.manifest.weights.sha256[:12]}….")
    for found in invalid:
        yield broken("models", found.message, cure=found.cure)


def _protection(settings: Settings) -> Iterator[Finding]:
    try:
        require_protected(settings)
    except UnprotectedError as error:
        yield broken("access", error.message, cure=error.cure)
        return
    if settings.access == "off":
        yield ok("access", f"No credentials are asked for; the server listens on {settings.host}, on this machine only.")
    else:
        provider = f" and tokens of {settings.oidc_issuer}" if settings.oidc_issuer else ""
        yield ok("access", f"API keys{provider} are asked for.")


CHECKS: dict[str, Check] = {
    "data_folder": folder_checks.data_folder,
    "disk": folder_checks.disk,
    "slide_roots": folder_checks.slide_roots,
    "path_mappings": folder_checks.path_mappings,
    "models": _models,
    "access": _protection,
    "database": database_checks.database,
    "gpu": machine_checks.gpu,
    "clock": machine_checks.clock,
}
"""By the name that their findings have; in the order in which they are done."""
