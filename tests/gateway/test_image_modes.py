"""The modes `fast` and `scaled` differ from `reference` only within bounds."""

import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gateway.errors import InvalidImage
from gateway.imaging.images import decode
from gateway.imaging.pixels import fit_fast, plan_fit
from gateway.modelspec import Preprocessing, Resample
from gateway.settings import DecodeMode
from gateway.tensors import Pixels
from tests.pictures import encode, gradient, in_mode, photo, rotated

LIMIT = 10_000_000
# In grey levels, for photographs, as docs/image-modes.md promises.
BOUNDS: dict[Resample, int] = {"bilinear": 1, "bicubic": 5, "nearest": 0, "lanczos": 0, "box": 0}
# In grey levels, for noise of black and white, which is the worst case.
NOISE_BOUND = 2
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

sizes = st.tuples(st.integers(1, 90), st.integers(1, 90))


def steps(**fields: object) -> Preprocessing:
    return Preprocessing.model_validate({"resize": None, "resample": "bilinear"} | fields)


def distance(data: bytes, preprocessing: Preprocessing, mode: DecodeMode = "fast") -> int:
    """Check that the shapes agree; the largest difference to `reference` in grey levels."""
    wanted, got = (decode(data, preprocessing, LIMIT, m) for m in ("reference", mode))
    assert got.shape == wanted.shape
    assert got.flags.c_contiguous
    return int(np.abs(wanted.astype(int) - got).max())


@given(
    st.integers(0, 2**32 - 1),
    sizes,
    sizes,
    st.sampled_from(["bilinear", "bicubic"]),
    st.sampled_from([1, 255]),
)
def test_noise_is_within_the_bound_of_pillow_by_rows_then_columns(
    seed: int, size: tuple[int, int], target: tuple[int, int], resample: Resample, step: int
) -> None:
    """Noise is within the bound of a resize by Pillow that narrows the rows first.

    Pillow's own order depends on the size, and the overshoot depends on the order.
    """
    random = np.random.default_rng(seed)
    noise: Pixels = (random.integers(0, 255 // step + 1, (*size, 3)) * step).astype(np.uint8)
    resize = {"height": target[0], "width": target[1]}
    kernel = FILTERS[resample]
    narrowed = Image.fromarray(noise).resize((target[1], size[0]), kernel)

    preprocessing = steps(resize=resize, resample=resample)
    plan = plan_fit(size[1], size[0], preprocessing)
    got = fit_fast(Image.fromarray(noise), plan, preprocessing, orientation=1)

    wanted = np.asarray(narrowed.resize((target[1], target[0]), kernel))
    assert np.abs(wanted.astype(int) - got).max() <= NOISE_BOUND


@given(sizes, sizes, st.sampled_from(["nearest", "lanczos", "box", "hamming"]))
def test_filters_that_only_pillow_has_are_exact(
    size: tuple[int, int], target: tuple[int, int], resample: Resample
) -> None:
    """Filters that fast_image_resize lacks give the very pixels of `reference`."""
    resize = {"height": target[0], "width": target[1]}

    assert distance(encode(gradient(*size), "PNG"), steps(resize=resize, resample=resample)) == 0


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize("fmt", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_pictures_are_within_the_bound(
    orientation: int, fmt: str, resample: Resample
) -> None:
    """A picture with any EXIF orientation is within the bound, also cropped at odd offsets."""
    crop = {"height": 31, "width": 33}
    preprocessing = steps(resample=resample, shortest_edge=40, center_crop=crop)

    assert distance(rotated(orientation, fmt), preprocessing) <= BOUNDS[resample]


@pytest.mark.parametrize("mode", ["fast", "scaled"])
@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("fmt", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_cropped_before_resizing_are_within_the_bound(
    orientation: int, fmt: str, resample: Resample, mode: DecodeMode
) -> None:
    """A first crop, which is cut from the upright picture, keeps every mode within its bound."""
    preprocessing = steps(
        resample=resample,
        first_crop={"height": 0.875, "width": 0.6},
        resize={"height": 20, "width": 31},
    )

    assert distance(rotated(orientation, fmt), preprocessing, mode) <= BOUNDS[resample]


@pytest.mark.parametrize("color", ["RGB", "L"])
@pytest.mark.parametrize("orientation", [1, 8])
def test_scaled_mode_crops_large_pictures_as_exactly_as_fast(orientation: int, color: str) -> None:
    """With a first crop, `scaled` keeps the bound of `fast`: it decodes all pixels."""
    large = Image.open(io.BytesIO(photo("china"))).resize((2003, 1501), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    preprocessing = steps(
        color=color,
        first_crop={"height": 0.875, "width": 0.875},
        resize={"height": 64, "width": 64},
    )

    data = encode(large, "JPEG", exif=exif)

    assert distance(data, preprocessing, "scaled") <= BOUNDS["bilinear"]


@pytest.mark.parametrize("color", ["RGB", "L"])
@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("orientation", [1, 7])
def test_large_pictures_are_within_the_bound(
    orientation: int, resample: Resample, color: str
) -> None:
    """A large photograph is within the bound, for every filter and colour mode."""
    large = Image.open(io.BytesIO(photo("flower"))).resize((1900, 1300))
    exif = Image.Exif()
    exif[0x0112] = orientation
    crop = {"height": 224, "width": 224}
    preprocessing = steps(resample=resample, color=color, shortest_edge=256, center_crop=crop)

    assert distance(encode(large, "JPEG", exif=exif), preprocessing) <= BOUNDS[resample]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_that_is_not_resized_has_the_pixels_of_pillow(
    mode: str, options: dict[str, object]
) -> None:
    """Decoding a JPEG without a resize gives the very pixels of `reference`."""
    data = encode(gradient(61, 43).convert(mode), "JPEG", **options)

    assert distance(data, steps()) == 0


def test_other_formats_that_are_not_resized_have_the_pixels_of_pillow() -> None:
    """Decoding PNG, WebP and TIFF without a resize gives the very pixels of `reference`."""
    for fmt in ("PNG", "WEBP", "TIFF"):
        assert distance(in_mode("RGBA", fmt), steps()) == 0


@pytest.mark.parametrize("orientation", [1, 6])
def test_scaled_mode_is_close_on_a_large_photograph(orientation: int) -> None:
    """On a large photograph, `scaled` differs from `reference`, but by 4 grey levels at most."""
    large = Image.open(io.BytesIO(photo("china"))).resize((2000, 1500), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(large, "JPEG", exif=exif)
    preprocessing = steps(resize={"height": 224, "width": 224})

    wanted, got = (decode(data, preprocessing, LIMIT, m) for m in ("reference", "scaled"))
    difference = np.abs(wanted.astype(int) - got)

    assert difference.max() > 0
    assert difference.max() <= 4
    assert difference.mean() < 0.5


@pytest.mark.parametrize("mode", ["fast", "scaled"])
def test_damaged_jpeg_is_refused_in_the_same_words(mode: DecodeMode) -> None:
    """A damaged JPEG has the same error in every mode, because Pillow decodes in every mode."""
    for data in (photo("china")[:20_000], photo("china")[:300], b"\xff\xd8\xff\xe1\xff\xff"):
        with pytest.raises(InvalidImage) as wanted:
            decode(data, steps(), LIMIT, "reference")
        with pytest.raises(InvalidImage) as got:
            decode(data, steps(), LIMIT, mode)
        assert str(got.value) == str(wanted.value)


def test_jpeg_over_the_pixel_limit_is_refused() -> None:
    """A JPEG over the pixel limit is refused by its header."""
    with pytest.raises(InvalidImage, match="GATEWAY_MAX_IMAGE_PIXELS"):
        decode(encode(gradient(101, 100), "JPEG"), steps(), 10_000, "fast")


@given(
    st.sampled_from(["RGB", "L", "CMYK"]),
    st.booleans(),
    st.lists(
        st.tuples(
            st.sampled_from(["replace", "insert", "delete"]),
            st.integers(2, 2**16),
            st.one_of(
                st.sampled_from([0x00, 0xC0, 0xC2, 0xD8, 0xDA, 0xE1, 0xFF]), st.integers(0, 255)
            ),
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_jpeg_with_a_damaged_head_is_decoded_or_refused_as_in_reference(
    mode: str, is_progressive: bool, damage: list[tuple[str, int, int]]
) -> None:
    """A JPEG with a damaged head gives the pixels or the error of `reference`."""
    data = bytearray(encode(gradient(40, 30).convert(mode), "JPEG", progressive=is_progressive))
    head = data.index(b"\xff\xda") + 10
    for what, place, value in damage:
        at = 2 + place % head
        data[at : at + (what != "insert")] = b"" if what == "delete" else bytes([value])
    preprocessing = steps(resize={"height": 16, "width": 24})

    try:
        decode(bytes(data), preprocessing, LIMIT, "reference")
    except InvalidImage as exc:
        with pytest.raises(InvalidImage, match=re.escape(str(exc))):
            decode(bytes(data), preprocessing, LIMIT, "fast")
    else:
        assert distance(bytes(data), preprocessing) <= NOISE_BOUND
