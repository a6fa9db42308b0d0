"""What a benchmark found, for people and for machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ModeReport:
    """One way to compute the map, on one slide."""

    name: str
    patches: int
    """Patches whose probability was found."""
    seconds: float
    """Wall time, model loaded."""
    seconds_by_stage: Mapping[str, float]
    network_share: float
    """Of the wall time that the network took."""
    share_of_machine: float
    """Operations a second while the network ran, over the machine's own convolution rate."""
    peak_memory_mb: float

    @property
    def patches_per_s(self) -> float:
        """Patches a second, everything counted."""
        return self.patches / self.seconds


@dataclass(frozen=True, slots=True)
class BenchmarkReport:
    """All ways on one slide, and the ratios between them."""

    machine: Mapping[str, Any]
    model: str
    slide: Mapping[str, Any]
    modes: tuple[ModeReport, ...]
    network_alone: Mapping[str, float]
    """Patches a second on ready arrays, by mode."""
    ratios: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        found = asdict(self)
        found["modes"] = [{**asdict(mode), "patches_per_s": mode.patches_per_s} for mode in self.modes]
        return found


def markdown(report: BenchmarkReport) -> str:
    """For people."""
    machine, slide = report.machine, report.slide
    lines = [
        f"{report.model} on {slide['name']}: {slide['tissue_mm2']:.1f} mm² of tissue, stride {slide['stride']} px; "
        f"{machine['device']}, {machine['cpus']} CPUs, {machine['precision']}, convolution {machine['convolution']:.0f} GFLOP/s, "
        f"matrix product {machine['matrix_product']:.0f} GFLOP/s.",
        "",
        "| way | patches | s | patches/s | network | waiting for pixels | of the machine's convolution rate | peak memory (MB) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for mode in report.modes:
        waiting = mode.seconds_by_stage.get("waiting", 0.0) / mode.seconds
        shares = " | ".join(f"{100 * share:.0f} %" for share in (mode.network_share, waiting, mode.share_of_machine))
        lines.append(
            f"| {mode.name} | {mode.patches} | {mode.seconds:.1f} | {mode.patches_per_s:.1f} | {shares} "
            f"| {mode.peak_memory_mb:.0f} |"
        )
    alone = ", ".join(f"{name} {rate:.0f}" for name, rate in report.network_alone.items())
    lines += ["", f"Network alone, on ready arrays, patches/s: {alone}.", ""]
    lines += [f"- {name}: {value:.2f}" for name, value in report.ratios.items()]
    return "\n".join(lines) + "\n"
