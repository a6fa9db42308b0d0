"""The tree of everything that hepamap can refuse or fail at.

Each class has a stable `code` (part of the REST and CLI contract: never rename one). Each instance has a sentence that
names the cause and a `cure` that says what the user can do. No HTTP here: `api/errors.py` maps classes to statuses.
"""

from __future__ import annotations

from typing import Any, ClassVar


class HepamapError(Exception):
    """Base of all foreseen errors; its text is written for a person and is safe to show to a client."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, cure: str) -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure

    def __reduce__(self) -> tuple[Any, ...]:
        # As it is, whatever its constructor takes: failures are passed on between processes.
        return _restored, (type(self), self.message), self.__dict__


def _restored(kind: type[HepamapError], message: str) -> HepamapError:
    return kind.__new__(kind, message)


def reason_of(error: OSError) -> str:
    """What the system says, without the file that it says it of: its name may be a slide's, and that may name a patient."""
    return error.strerror or type(error).__name__


class SlideError(HepamapError):
    """The slide cannot be used."""

    code = "slide_error"


class SlideNotFoundError(SlideError):
    """There is no file at the path."""

    code = "slide_not_found"


class SlideNotReadableError(SlideError):
    """The file exists, but this process may not read it."""

    code = "slide_not_readable"


class NotASlideError(SlideError):
    """The file is none that OpenSlide recognises."""

    code = "not_a_slide"


class SlideDamagedError(SlideError):
    """The slide is recognised, but its header, a level or a region cannot be decoded."""

    code = "slide_damaged"


class PixelSizeMissingError(SlideError):
    """Neither the slide nor the user says how large a pixel is."""

    code = "pixel_size_missing"


class PixelSizeInvalidError(SlideError):
    """A pixel size is not one that a microscope slide can have."""

    code = "pixel_size_invalid"


class ResolutionTooCoarseError(SlideError):
    """The slide's finest level is coarser than the model's resolution."""

    code = "resolution_too_coarse"


class SlideMismatchError(SlideError):
    """The slide on the server is not the one that the client has open."""

    code = "slide_mismatch"


class RegionError(HepamapError):
    """The region of interest cannot be used."""

    code = "region_error"


class RegionInvalidError(RegionError):
    """The region is no polygon in GeoJSON, or it crosses itself."""

    code = "region_invalid"


class RegionTooComplexError(RegionError):
    """What was drawn crosses itself so often that computing with it would take too long."""

    code = "region_too_complex"


class RegionEmptyError(RegionError):
    """The region has no area."""

    code = "region_empty"


class RegionOutsideSlideError(RegionError):
    """No part of the region lies on the slide."""

    code = "region_outside_slide"


class ParameterError(HepamapError):
    """A parameter of the analysis is outside its range."""

    code = "parameter_invalid"


class ThresholdInvalidError(ParameterError):
    """The threshold is not a probability strictly between 0 and 1."""

    code = "threshold_invalid"


class StrideInvalidError(ParameterError):
    """The stride is none that the model allows."""

    code = "stride_invalid"


class ModelError(HepamapError):
    """A model pack cannot be used."""

    code = "model_error"


class ModelNotFoundError(ModelError):
    """No pack of that id and version is installed."""

    code = "model_not_found"


class PackInvalidError(ModelError):
    """The manifest of a pack breaks its schema, or its weights do not fit its network."""

    code = "pack_invalid"


class PackDamagedError(ModelError):
    """The weights are not those that the manifest names (sha256 differs, or the file is missing)."""

    code = "pack_damaged"


class ModelChangedError(ModelError):
    """The pack of that id and version is no longer the one that the analysis was asked for with."""

    code = "model_changed"


class PredictionInvalidError(ModelError):
    """A network answered something that is no probability."""

    code = "prediction_invalid"


class OutOfMemoryError(ModelError):
    """The memory of the machine or its GPU does not suffice for the network."""

    code = "out_of_memory"


class OutputError(HepamapError):
    """A result cannot be written or read."""

    code = "output_error"


class OutputExistsError(OutputError):
    """There is a result already, and nobody asked to replace it."""

    code = "output_exists"


class OutputNotWritableError(OutputError):
    """The folder cannot be written: no permission, or the disk is full."""

    code = "output_not_writable"


class ResultDamagedError(OutputError):
    """A stored result is incomplete or does not fit its own description."""

    code = "result_damaged"


class SettingsInvalidError(HepamapError):
    """A setting, given by the environment or an option, is none that can be used."""

    code = "settings_invalid"


class PasswordUnreadableError(HepamapError):
    """The file that should hold the database's password cannot be read."""

    code = "database_password_unreadable"


class CancelledError(HepamapError):
    """The user asked to stop."""

    code = "cancelled"

    def __init__(self, message: str = "The analysis was cancelled.", *, cure: str = "Start it again when you want it.") -> None:
        super().__init__(message, cure=cure)
