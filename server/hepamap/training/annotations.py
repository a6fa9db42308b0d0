"""Annotation files of every kind that can be read: the format goes by the file's ending, for XML by its first element.

A new format is a module in `readers/` and a row in a table here; the rest of training knows no format.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hepamap.training.errors import AnnotationInvalidError, AnnotationNotFoundError
from hepamap.training.readers import asap, imagescope
from hepamap.training.readers.drawn import AnnotationFile
from hepamap.training.readers.geojson import read_geojson
from hepamap.training.readers.ndpa import read_ndpa
from hepamap.training.readers.xml_file import parse

Reader = Callable[[bytes, str], AnnotationFile]

_XML_READERS: dict[str, Reader] = {
    asap.ROOT: asap.read_asap,
    imagescope.ROOT: imagescope.read_imagescope,
    "annotations": read_ndpa,
}
_CURE = "Export the annotations from QuPath as GeoJSON, or give NDP.view's .ndpa, or the XML of ASAP or ImageScope."


def read_annotations(path: Path) -> AnnotationFile:
    """Read an annotation file.

    Raises:
        AnnotationNotFoundError: there is no such file, or it cannot be read.
        AnnotationInvalidError: its format is not known, or the content is not what the ending says.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise AnnotationInvalidError(
            f"Annotations of the kind “{path.suffix or 'without ending'}” cannot be read ({path.name}).", cure=_CURE
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AnnotationNotFoundError(
            f"The annotation file {path.name} cannot be read ({error.strerror}).",
            cure="Check the path; in a cohort table it is relative to the table's folder.",
        ) from error
    return reader(data, path.name)


def _read_xml(data: bytes, name: str) -> AnnotationFile:
    root = parse(data, name, "ASAP or ImageScope").tag
    reader = _XML_READERS.get(root)
    if reader is None:
        raise AnnotationInvalidError(f"The file {name} begins with <{root}>, which no viewer that is known writes.", cure=_CURE)
    return reader(data, name)


_READERS: dict[str, Reader] = {".geojson": read_geojson, ".json": read_geojson, ".ndpa": read_ndpa, ".xml": _read_xml}
