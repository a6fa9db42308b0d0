"""The text of a pack's MODEL_CARD.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hepamap import RESEARCH_USE_ONLY
from hepamap.model_pack import CARD_NAME, ManifestBody, ModelPack, replace_text
from hepamap.training.card_figures import measured

_FIRST_LINE = {
    "synthetic": (
        "**These weights come from synthetic tissue. They show that the software works; they have no diagnostic value.**"
    ),
    "imported": (
        "**These weights were imported. What they were trained on is known to who made them; they have not been validated here.**"
    ),
    "own": "**These weights were trained on one laboratory's slides and have not been validated for diagnosis.**",
}

_MEASURED = "## Measured"

INTENDED_USE = {
    "synthetic": "Showing and testing the software on synthetic slides. Not for any use on patients' slides.",
    "imported": "Research. Not for diagnosis. Measure it on annotated slides of your own first (hepamap evaluate).",
    "own": "Research on slides like those of its training data. Not for diagnosis.",
}

_OWN_WEIGHTS = """## Putting your own weights in

1. Outline tumour and non-tumour on your slides in QuPath (classes “Tumor” and “Non-tumor”) and export them as GeoJSON.
2. Write a table `cohort.csv` with the columns `slide,annotations,group,split`; one tumour's slides stay in one split.
3. `hepamap dataset build cohort.csv --out dataset --mpp {mpp:g} --patch {patch}{options}`
4. Copy the recipe `models/recipes/{recipe}.toml` and write into it {changes}. Then
   `hepamap train my-recipe.toml dataset --run run`.

The new pack stands in `models/<id>/<version>/` and can be chosen by its id at once; no code changes.
"""


def model_card(body: ManifestBody, origin: str) -> str:
    """Write the card from the manifest, so that the two cannot disagree.

    Args:
        body: the manifest without its weights.
        origin: `synthetic`, `own` or `imported`.
    """
    sections = [
        _FIRST_LINE[origin],
        RESEARCH_USE_ONLY,
        f"# {body.id} {body.version}: {body.title}",
        own_weights(body).rstrip(),
        "## What it is",
        _table(
            {
                "network": f"{body.network.backbone} + {body.network.head}",
                "input": f"{body.input.patch} × {body.input.patch} px at {body.input.mpp:g} µm/px, RGB / 255",
                "output": f"probabilities of ({', '.join(body.classes)})",
                "intended use": body.intended_use,
                "licence of the weights": body.licence,
            }
        ),
        "## Data and recipe",
        _table(_flat(body.training)),
        _MEASURED,
        measured(body),
    ]
    return "\n\n".join(sections) + "\n"


def own_weights(body: ManifestBody) -> str:
    """The steps to one's own weights of such a model, with recipes that need nothing but the packs that ship."""
    spec, is_segmentation = body.input, body.network.kind == "segmentation"
    changes, options = ["an `id` of your own", '`origin = "own"`'], " --masks" if is_segmentation else ""
    if is_segmentation:
        recipe = "fcn-5x" if body.network.backbone.startswith("FCN") else "unet-5x"
    elif spec.patch == 128:
        recipe = "hcc-10x-start"
        changes.append('`initialise = "pack:hcc-5x"`')  # its own start is a pack that does not ship
    else:
        recipe = "hcc-5x-start"
    if (spec.mpp, spec.patch) != ((0.92, 128) if recipe == "hcc-10x-start" else (1.84, 64)):
        strides, stride = list(body.strides), body.default_stride
        changes += [f"`mpp = {spec.mpp:g}`", f"`patch = {spec.patch}`", f"`strides = {strides}`", f"`default_stride = {stride}`"]
    listed = f"{', '.join(changes[:-1])} and {changes[-1]}"
    return _OWN_WEIGHTS.format(mpp=spec.mpp, patch=spec.patch, options=options, recipe=recipe, changes=listed)


def rewrite_card(pack: ModelPack) -> None:
    """Bring the card's part “Measured” in step with the manifest; the rest, which may be somebody's own words, stays.

    Raises:
        OutputNotWritableError: no permission, or the disk is full.
    """
    path = pack.folder / CARD_NAME
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    before, found, rest = f"\n{text}".partition(f"\n{_MEASURED}\n")
    following = rest.find("\n## ") if found else -1
    after = rest[following:] if following >= 0 else "\n"
    card = f"{before.strip()}\n\n{_MEASURED}\n\n{measured(pack.manifest)}\n{after}".strip() + "\n"
    replace_text(path, card)


def _table(values: Mapping[str, Any]) -> str:
    rows = "\n".join(f"| {key} | {value} |" for key, value in values.items())
    return f"| | |\n|---|---|\n{rows}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted names; None is left out."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{name}, ")
        elif value is not None:
            flat[name] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
    return flat
