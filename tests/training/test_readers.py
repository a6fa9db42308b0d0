from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hepamap.slide import Slide
from hepamap.training.annotations import read_annotations
from hepamap.training.areas import labelled_areas
from hepamap.training.class_map import DEFAULT_CLASSES
from hepamap.training.cohort import CohortSlide
from hepamap.training.errors import AnnotationInvalidError, AnnotationOutsideError, ClassesUnknownError
from hepamap.training.readers.asap import read_asap
from hepamap.training.readers.imagescope import read_imagescope
from hepamap.training.readers.ndpa import read_ndpa

from .conftest import box, feature, toy_pixels, write_slide

ASAP = """<?xml version="1.0"?>
<ASAP_Annotations>
 <Annotations>
  <Annotation Name="Annotation 0" Type="Polygon" PartOfGroup="Tumor" Color="#F4FA58"><Coordinates>
   <Coordinate Order="0" X="0" Y="0"/><Coordinate Order="2" X="10" Y="10"/>
   <Coordinate Order="1" X="10" Y="0"/><Coordinate Order="3" X="0" Y="10"/>
  </Coordinates></Annotation>
  <Annotation Name="Normal" Type="Rectangle" PartOfGroup="None" Color="#F4FA58"><Coordinates>
   <Coordinate Order="0" X="20.5" Y="0"/><Coordinate Order="1" X="24.5" Y="0"/>
   <Coordinate Order="2" X="24.5" Y="5"/><Coordinate Order="3" X="20.5" Y="5"/>
  </Coordinates></Annotation>
  <Annotation Name="a" Type="Dot" PartOfGroup="Tumor"><Coordinates><Coordinate Order="0" X="1" Y="1"/></Coordinates></Annotation>
  <Annotation Name="b" Type="Spline" PartOfGroup="Tumor"><Coordinates><Coordinate X="1" Y="1"/></Coordinates></Annotation>
 </Annotations>
 <AnnotationGroups><Group Name="Tumor" PartOfGroup="None" Color="#64FE2E"><Attributes/></Group></AnnotationGroups>
</ASAP_Annotations>
"""


def vertices(*corners: tuple[float, float]) -> str:
    return "<Vertices>" + "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in corners) + "</Vertices>"


IMAGESCOPE = f"""<?xml version="1.0" encoding="UTF-8"?>
<Annotations MicronsPerPixel="0.25">
 <Annotation Id="1" Name="Tumor" LineColor="255"><Regions><RegionAttributeHeaders/>
  <Region Id="1" Type="0" NegativeROA="0">{vertices((0, 0), (100, 0), (100, 100), (0, 100))}</Region>
  <Region Id="2" Type="0" NegativeROA="1">{vertices((10, 10), (30, 10), (30, 30), (10, 30))}</Region>
  <Region Id="3" Type="2" NegativeROA="0">{vertices((200, 0), (240, 20))}</Region>
  <Region Id="4" Type="3" NegativeROA="0">{vertices((0, 0), (5, 5))}</Region>
 </Regions></Annotation>
 <Annotation Id="2" Name=""><Attributes><Attribute Name="Description" Value="Normal"/></Attributes><Regions>
  <Region Id="1" Type="1" Text="x">{vertices((0, 200), (40, 200), (40, 230), (0, 230))}</Region>
 </Regions></Annotation>
 <Annotation Id="3" Name=" "><Regions>
  <Region Id="1" Type="0" Text="HCC">{vertices((300, 0), (310, 10), (310, 0), (300, 10))}</Region>
  <Region Id="2" Type="0" Text="HCC">{vertices((300, 0), (310, 10))}</Region>
 </Regions></Annotation>
</Annotations>
"""


def ndpa(title: str, shape: str, coordformat: str = "nanometers") -> str:
    return (
        f'<annotations><ndpviewstate id="1"><title>{title}</title><details/><coordformat>{coordformat}</coordformat>'
        f"<lens>1.25</lens><x>0</x><y>0</y><z>0</z>{shape}</ndpviewstate></annotations>"
    )


def freehand(*corners: tuple[int, int], closed: int = 1) -> str:
    listed = "".join(f"<point><x>{x}</x><y>{y}</y></point>" for x, y in corners)
    return (
        f'<annotation type="freehand" displayname="AnnotateFreehand" color="#000000"><measuretype>0</measuretype>'
        f"<closed>{closed}</closed><pointlist>{listed}</pointlist></annotation>"
    )


def test_asap_takes_the_group_or_the_name_and_the_points_in_their_order() -> None:
    found = read_asap(ASAP.encode(), "a.xml")
    # By order of appearance the first polygon would be a bow tie of 50 px².
    assert [(a.class_name, a.polygon.area) for a in found.annotations] == [("Tumor", 100), ("Normal", 20)]
    assert found.annotations[1].polygon.bounds == (20.5, 0, 24.5, 5)
    assert (found.repaired, found.frame) == (0, "level0")
    assert found.ignored == {"Dot, not an area": 1, "without area": 1}


def test_imagescope_layers_holes_and_shapes() -> None:
    found = read_imagescope(IMAGESCOPE.encode(), "a.xml")
    names = [a.class_name for a in found.annotations]
    areas = [a.polygon.area for a in found.annotations]
    assert names == ["Tumor", "Tumor", "Normal", "HCC"]
    assert areas[0] == 100 * 100 - 20 * 20
    assert areas[1] == pytest.approx(math.pi * 20 * 10, rel=1e-3)
    assert areas[2:] == [40 * 30, 50]
    assert (found.repaired, found.frame) == (1, "level0")
    assert found.ignored == {"arrow, not an area": 1, "without area": 1}


def test_imagescope_cuts_a_hole_out_of_a_repaired_outline_and_repairs_the_hole() -> None:
    bow_tie, small = vertices((0, 0), (100, 100), (100, 0), (0, 100)), vertices((60, 45), (80, 55), (80, 45), (60, 55))
    text = (
        f'<Annotations><Annotation Name="Tumor"><Regions><Region Type="0">{bow_tie}</Region>'
        f'<Region Type="0" NegativeROA="1">{small}</Region></Regions></Annotation></Annotations>'
    )
    found = read_imagescope(text.encode(), "a.xml")
    # Two triangles of base 100 and height 50, less two of base 10 and height 10 that lie in the right one.
    assert found.annotations[0].polygon.area == pytest.approx(2 * 2500 - 2 * 50)
    assert found.repaired == 1


def test_ndpa_areas_circles_and_what_is_none() -> None:
    square = freehand((-100, -100), (100, -100), (100, 100), (-100, 100))
    found = read_ndpa(ndpa("Tumor", square).encode(), "a.ndpa")
    assert [(a.class_name, a.polygon.area, found.frame) for a in found.annotations] == [("Tumor", 40_000, "slide_centre_nm")]
    circle = '<annotation type="circle"><x>50</x><y>-50</y><radius>1000</radius></annotation>'
    drawn = read_ndpa(ndpa("Tumor", circle).encode(), "a.ndpa").annotations[0].polygon
    assert drawn.area == pytest.approx(math.pi * 1e6, rel=1e-3)
    assert drawn.centroid.coords[0] == pytest.approx((50, -50))
    line = read_ndpa(ndpa("Tumor", freehand((0, 0), (9, 9), (9, 0), closed=0)).encode(), "a.ndpa")
    assert (line.annotations, line.ignored) == ((), {"open line, not an area": 1})
    ruler = read_ndpa(ndpa("x", '<annotation type="linearmeasure"><x1>1</x1></annotation>').encode(), "a.ndpa")
    assert ruler.ignored == {"linearmeasure, not an area": 1}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.ndpa", "<annotations><ndpviewstate>", "no XML"),
        ("a.ndpa", "<Annotations/>", "begins with <Annotations>"),
        ("a.ndpa", ndpa("Tumor", freehand((0, 0)), "pixels"), "coordinates in pixels"),
        ("a.ndpa", ndpa("Tumor", "<annotation><pointlist><point><x>1</x></point></pointlist></annotation>"), "says “None”"),
        ("a.xml", "<html/>", "begins with <html>"),
        ("a.xml", '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY y "z">]><Annotations>&y;</Annotations>', "document type"),
        ("a.xml", ASAP.replace('X="20.5"', 'X="left"'), "says “left”"),
        ("a.xml", ASAP.replace('X="20.5"', 'X="nan"'), "says “nan”"),
        ("a.xml", IMAGESCOPE.replace('X="10"', 'X="inf"'), "says “inf”"),
        ("a.xml", IMAGESCOPE.replace('X="100"', 'X="inf"'), "says “inf”"),
    ],
)
def test_what_no_viewer_writes_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(AnnotationInvalidError, match=message) as caught:
        read_annotations(tmp_path / name)
    assert name in caught.value.message


def test_a_document_type_hidden_in_utf_16_is_refused(tmp_path: Path) -> None:
    text = '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE x [<!ENTITY y "z">]><Annotations/>'
    (tmp_path / "a.xml").write_bytes(text.encode("utf-16"))
    with pytest.raises(AnnotationInvalidError, match="document type"):
        read_annotations(tmp_path / "a.xml")


@pytest.mark.parametrize(
    ("text", "first"), [(ASAP, "Tumor"), (IMAGESCOPE, "Tumor"), (ndpa("HCC", freehand((0, 0), (9, 0), (9, 9))), "HCC")]
)
def test_xml_is_told_apart_by_its_first_element(tmp_path: Path, text: str, first: str) -> None:
    (tmp_path / "a.XML").write_text(text, encoding="utf-8")
    assert read_annotations(tmp_path / "a.XML").annotations[0].class_name == first


def row_of(folder: Path, name: str, text: str, frame: str = "qupath") -> CohortSlide:
    (folder / name).write_text(text, encoding="utf-8")
    return CohortSlide(write_slide(folder / "a.tif", toy_pixels(0)), folder / name, "p", "train", frame=frame)


def test_xml_counts_from_level_0_and_keeps_its_place(tmp_path: Path) -> None:
    row = row_of(tmp_path, "a.xml", IMAGESCOPE)
    with Slide.open(row.slide) as slide:
        areas = labelled_areas(slide, row)
    assert areas.tumour_l0.bounds == (0, 0, 310, 100)
    assert areas.non_tumour_l0.bounds == (0, 200, 40, 230)


def test_ndpa_needs_a_slide_that_says_where_it_lies(tmp_path: Path) -> None:
    row = row_of(tmp_path, "a.ndpa", ndpa("Tumor", freehand((0, 0), (9, 0), (9, 9))))
    with Slide.open(row.slide) as slide, pytest.raises(AnnotationInvalidError, match="does not say where it lies"):
        labelled_areas(slide, row)


def test_ndpa_lies_on_a_real_ndpi_by_its_offsets(shared_data: Path, tmp_path: Path) -> None:
    path = next((shared_data / "slides" / "slideio").glob("*.ndpi"))
    with Slide.open(path) as slide:
        offset = np.array([float(slide.properties[f"hamamatsu.{axis}OffsetFromSlideCentre"]) for axis in "XY"])
        nm = 1000 * np.array([slide.pixel_size.x_um, slide.pixel_size.y_um])
        # Level-0 px (1000, 2000) to (1400, 2300), told as NDP.view does: from the middle of the glass.
        middle = np.array([slide.size_l0.width, slide.size_l0.height]) / 2
        corners = [
            tuple(np.rint((np.array(c) - middle) * nm + offset).astype(int))
            for c in ((1000, 2000), (1400, 2000), (1400, 2300), (1000, 2300))
        ]
        (tmp_path / "a.ndpa").write_text(ndpa("Tumor", freehand(*corners)), encoding="utf-8")
        row = CohortSlide(path, tmp_path / "a.ndpa", "p", "train")
        assert labelled_areas(slide, row).tumour_l0.bounds == pytest.approx((1000, 2000, 1400, 2300), abs=0.01)
        # The user's word for the pixel size does not move what the scanner measured.
    with Slide.open(path, mpp_override_um=0.5) as slide:
        assert labelled_areas(slide, row).tumour_l0.bounds == pytest.approx((1000, 2000, 1400, 2300), abs=0.01)


def test_real_ndpa_files(shared_data: Path) -> None:
    found = read_annotations(shared_data / "annotations/lazyslide/annotations_mixed.ndpa")
    assert [(a.class_name, a.polygon.area) for a in found.annotations] == [("Tumor", 100_000 * 200_000)]
    assert found.ignored == {"open line, not an area": 1, "pin, not an area": 1, "unknown, not an area": 1}
    with pytest.raises(AnnotationInvalidError, match="no XML"):
        read_annotations(shared_data / "annotations/lazyslide/annotations_malformed.ndpa")


def collection(*features: object) -> str:
    return json.dumps({"type": "FeatureCollection", "features": features})


def test_names_that_all_mean_nothing_are_an_error_with_the_names(tmp_path: Path) -> None:
    drawn = collection(feature([box(0, 0, 99, 99)], classification="Tumr"), feature([box(0, 0, 9, 9)]))
    row = replace(row_of(tmp_path, "a.geojson", drawn), unannotated="non_tumour")
    with Slide.open(row.slide) as slide:
        with pytest.raises(ClassesUnknownError, match="“Tumr”, “no class”") as caught:
            labelled_areas(slide, row)
        assert "--tumour-class" in caught.value.cure
        assert labelled_areas(slide, row, DEFAULT_CLASSES.with_names(["tumr"])).tumour_l0.area == 99 * 99
        # Where others are known, what means nothing is no “everything else”; what was drawn as liver inside of it is liver.
        known = feature([box(200, 0, 300, 100)], classification="Tumor"), feature([box(0, 0, 9, 9)], classification="Normal")
        row.annotations.write_text(collection(feature([box(0, 0, 99, 99)], classification="Grade 2"), *known), encoding="utf-8")
        areas = labelled_areas(slide, row)
        assert (areas.tumour_l0.area, areas.ignored_classes) == (100 * 100, {"Grade 2": 1})
        assert areas.non_tumour_l0.area == 768 * 768 - 100 * 100 - 99 * 99 + 9 * 9
        # A biopsy without any tumour drawn is no error.
        row.annotations.write_text(collection(), encoding="utf-8")
        assert labelled_areas(slide, row).non_tumour_l0.area == 768 * 768


def test_what_an_open_line_goes_around_is_not_everything_else(tmp_path: Path) -> None:
    """Perhaps tumour whose outline nobody closed: where only tumour is drawn, it must not become non-tumour."""
    line = {"type": "LineString", "coordinates": [[0, 0], [100, 0], [100, 50], [0, 50], [0, 10]]}
    ruler = {"type": "LineString", "coordinates": [[300, 300], [500, 500]]}
    lines = [{"type": "Feature", "properties": {"classification": "Tumor"}, "geometry": it} for it in (line, ruler)]
    row = replace(row_of(tmp_path, "a.geojson", collection(*lines)), unannotated="non_tumour")
    with Slide.open(row.slide) as slide:
        areas = labelled_areas(slide, row)
    assert areas.file.ignored == {"open line, not an area": 2}
    assert (areas.tumour_l0.area, areas.non_tumour_l0.area) == (0, 768 * 768 - 100 * 50)
    ndpa_line = read_ndpa(ndpa("Tumor", freehand((0, 0), (90, 0), (90, 10), (0, 10), closed=0)).encode(), "a.ndpa")
    assert ndpa_line.enclosed.area == 900


def test_annotations_of_another_slide_are_refused(tmp_path: Path) -> None:
    row = row_of(tmp_path, "a.geojson", collection(feature([box(700, 0, 900, 100)], classification="Tumor")))
    with Slide.open(row.slide) as slide:
        with pytest.raises(AnnotationOutsideError, match="outside of the slide"):
            labelled_areas(slide, row)
        row.annotations.write_text(collection(feature([box(600, 0, 900, 100)], classification="Tumor")), encoding="utf-8")
        assert labelled_areas(slide, row).tumour_l0.area == 300 * 100
        # One that lies wholly beside the slide is not of this slide, however much else is on it.
        stray, big = box(900, 900, 910, 910), feature([box(0, 0, 700, 700)], classification="Tumor")
        row.annotations.write_text(collection(big, feature([stray], classification="Normal")), encoding="utf-8")
        with pytest.raises(AnnotationOutsideError, match=r"^1 of the 2 annotations in a\.geojson lies outside of the slide"):
            labelled_areas(slide, row)
        row.annotations.write_text(collection(big, feature([stray], classification="Vessel")), encoding="utf-8")
        assert labelled_areas(slide, row).tumour_l0.area == 700 * 700


def test_given_class_names_replace_those_of_their_meaning_only() -> None:
    classes = DEFAULT_CLASSES.with_names(tumour=["CHC G2", "Normal"], excluded=[])
    assert (classes.meaning("chc-g2"), classes.meaning("normal"), classes.meaning("HCC")) == ("tumour", "tumour", None)
    assert (classes.meaning("Foie"), classes.meaning("Ignore*")) == ("non_tumour", "excluded")
