"""What a benchmark found, for people and for machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

STAGES: Mapping[str, str] = {
    "opening": "opening",
    "waiting": "waiting for pixels",
    "network": "network",
    "map": "rest of the map",
    "contours": "contours",
    "picture": "picture of the slide",
    "writing": "writing",
}
"""What the time of a run is made of, one after the other, with titles for people."""

_MEMORY = (
    "Peak memory: the most that the process held (resident set) from the start of a way to its end, the loaded network and all "
    "libraries counted; each way has a network of its own, and what the one before it held was given back. What a GPU holds is "
    "not in it."
)
_TIME = (
    "A run is what `hepamap detect` does once the model is loaded, from opening the slide to the written files. Graphs are built "
    "before: once for each width of lanes and process. The authors' loop is reading and network alone."
)


@dataclass(frozen=True, slots=True)
class ModeReport:
    """One way to compute the map, on one slide."""

    name: str
    patches: int
    """Patches whose probability was found."""
    seconds: float
    """Wall time, model loaded."""
    seconds_by_stage: Mapping[str, float]
    """By the keys of `STAGES`; together they are the wall time."""
    seconds_of_readers: Mapping[str, float]
    """`decode` and `resample`, in threads beside those stages, added up over the threads."""
    network_share: float
    """Of the wall time that the network took."""
    share_of_machine: float
    """Operations a second while the network ran, over the machine's own convolution rate."""
    peak_memory_mb: float
    """Largest resident set of this process while the way ran, see `PeakMemory`."""

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
    dense_seconds: tuple[float, ...] = ()
    """Of the dense runs, in their order; the one in the middle is among the modes."""
    warnings: tuple[Mapping[str, str], ...] = ()
    """Code and message of what went otherwise than the machine promised."""

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        found = asdict(self)
        found["modes"] = [{**asdict(mode), "patches_per_s": mode.patches_per_s} for mode in self.modes]
        return found


def markdown(report: BenchmarkReport) -> str:
    """For people."""
    machine, slide = report.machine, report.slide
    titles = ["way", "patches", "s", "patches/s", *STAGES.values(), "of the machine's convolution rate", "peak memory (MB)"]
    lines = [
        f"{report.model} on {slide['name']}: {slide['tissue_mm2']:.1f} mm² of tissue, stride {slide['stride']} px; "
        f"{machine['device']}, {machine['cpus']} CPUs, {machine['precision']}, convolution {machine['convolution']:.0f} GFLOP/s, "
        f"matrix product {machine['matrix_product']:.0f} GFLOP/s.",
        "",
        _row(titles),
        "|" + "---|" * len(titles),
        *(_row(_cells(mode)) for mode in report.modes),
        "",
        _TIME,
        _MEMORY,
    ]
    alone = ", ".join(f"{name} {rate:.0f}" for name, rate in report.network_alone.items())
    runs = ", ".join(f"{seconds:.1f}" for seconds in report.dense_seconds)
    lines += [
        "",
        f"Dense runs, s: {runs}; the one in the middle counts.",
        f"Network alone, on ready arrays, patches/s: {alone}.",
        "",
    ]
    lines += [f"- {name}: {value:.2f}" for name, value in report.ratios.items()]
    return "\n".join(lines) + "\n"


def _cells(mode: ModeReport) -> list[str]:
    shares = [_share(mode.seconds_by_stage.get(stage), mode.seconds) for stage in STAGES]
    return [
        *(mode.name, f"{mode.patches}", f"{mode.seconds:.1f}", f"{mode.patches_per_s:.1f}"),
        *(*shares, f"{100 * mode.share_of_machine:.0f} %", f"{mode.peak_memory_mb:.0f}"),
    ]


def _share(seconds: float | None, of_seconds: float) -> str:
    """A stage that a way does not have is a dash."""
    return "–" if seconds is None else f"{100 * seconds / of_seconds:.1f} %"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
