"""Questions and answers about slides, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Self

from pydantic import Field, FiniteFloat, model_validator

from hepamap.api.schemas import Answer, FrameAnswer, RequestBody


class ResolveRequest(RequestBody):
    """A slide as the client names it, and what its viewer shows of it."""

    path: str = Field(
        min_length=1,
        max_length=4096,
        description="Path or address of the file, as the client has it.",
        examples=[r"S:\slides\case-17.ndpi", "smb://nas/slides/case-17.ndpi", "file:///S:/slides/case-17.ndpi"],
    )
    width: int | None = Field(default=None, gt=0, description="Width of the image in the viewer, px.", examples=[10439])
    height: int | None = Field(default=None, gt=0, description="Height of the image in the viewer, px.", examples=[7641])
    pixel_width_um: FiniteFloat | None = Field(
        default=None, gt=0, description="Pixel width in the viewer, µm.", examples=[0.3225]
    )
    pixel_height_um: FiniteFloat | None = Field(
        default=None, gt=0, description="Pixel height in the viewer, µm.", examples=[0.3225]
    )

    @model_validator(mode="after")
    def _in_pairs(self) -> Self:
        for one, other in (("width", "height"), ("pixel_width_um", "pixel_height_um")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise ValueError(f"{one} and {other} are given together or not at all")
        return self


class SlideAnswer(Answer):
    """A slide as the server sees it."""

    path: str = Field(description="Where it lies, as this server sees it.", examples=["/data/slides/case-17.ndpi"])
    fingerprint: str = Field(description="Tells this slide from every other, whatever its name.", examples=["sha256:6f1d…"])
    width: int = Field(description="Width of level 0, px.", examples=[10439])
    height: int = Field(description="Height of level 0, px.", examples=[7641])
    pixel_width_um: float | None = Field(description="Pixel width, µm; null where nobody says it.", examples=[0.3225])
    pixel_height_um: float | None = Field(description="Pixel height, µm; null where nobody says it.", examples=[0.3225])
    frame: FrameAnswer | None = Field(description="The client's frame; null where it shows another slide.")


class ReasonAnswer(Answer):
    """Why the answer is no."""

    code: str = Field(
        description="Stable name: `path_not_mapped`, `outside_roots`, `slide_not_found`, `slide_mismatch`, or another "
        "one of a slide.",
        examples=["path_not_mapped"],
    )
    message: str = Field(description="The cause, for a person.")
    cure: str = Field(description="What the person can do; for `path_not_mapped`, which prefix the operator would have to map.")


class ResolvedAnswer(Answer):
    """Whether the server sees a slide, and whether it is the client's."""

    visible: bool = Field(default=False, description="The server sees the file and can open it as a slide.", examples=[True])
    same_slide: bool | None = Field(
        default=None, description="It is what the viewer shows; null where the viewer's size was not sent.", examples=[True]
    )
    slide: SlideAnswer | None = Field(default=None, description="The slide; null where the server does not see it.")
    reason: ReasonAnswer | None = Field(default=None, description="Why not; null where all is well.")
