"""What the gateway packs into a call is what our Triton backend unpacks."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deploy.triton_backend.pictures import Fitting, unpack
from gateway.modelspec import ModelSpec, Preprocessing, Size
from gateway.tensors import JpegFile, Picture
from gateway.triton.client import LoadedModel
from gateway.triton.payload import payload

SPEC = ModelSpec.model_construct(  # type: ignore[call-arg]  # no other field is read
    preprocessing=Preprocessing(resize=Size(height=2, width=3), resample="bilinear"),
    input_size=Size(height=2, width=3),
)
NUMBERS = st.integers(1, 2**32 - 1)
JPEGS = st.builds(
    JpegFile,
    data=st.binary(max_size=300).map(memoryview),
    width=NUMBERS,
    height=NUMBERS,
    resized=st.tuples(NUMBERS, NUMBERS),
    turn=st.integers(0, 7),
    left=st.integers(0, 2**32 - 1),
    top=st.integers(0, 2**32 - 1),
)
PIXELS = st.binary(min_size=18, max_size=18).map(
    lambda data: np.frombuffer(data, np.uint8).reshape(2, 3, 3)
)


def model(*, takes_files: bool) -> LoadedModel:
    return LoadedModel(SPEC, "a--b", "contract", "cpu", 8, takes_files)


def bytes_of(picture: Picture) -> bytes:
    return bytes(picture.data) if isinstance(picture, JpegFile) else picture.tobytes()


def fitting_of(picture: Picture) -> Fitting:
    if not isinstance(picture, JpegFile):
        return Fitting(0, 0, 0, 0, 0, 0, 0)
    size = picture.width, picture.height, *picture.resized
    return Fitting(*size, picture.turn, picture.left, picture.top)


@given(st.lists(JPEGS | PIXELS, min_size=1, max_size=9))
def test_backend_unpacks_what_the_gateway_packs(pictures: list[Picture]) -> None:
    """Files of any lengths and pixels, mixed; the call has at most a row of padding."""
    packed = payload(model(takes_files=True), pictures)

    content = b"".join(packed.parts)
    assert packed.name == "image"
    assert len(content) == packed.size == packed.shape[0] * packed.shape[1]
    assert packed.shape[0] == len(pictures)
    assert packed.size < sum(32 + len(bytes_of(p)) for p in pictures) + len(pictures)
    found = list(unpack(np.frombuffer(content, np.uint8).reshape(packed.shape)))
    assert [bytes(picture.data) for picture in found] == [bytes_of(p) for p in pictures]
    assert [picture.fitting for picture in found] == [fitting_of(p) for p in pictures]


@given(st.lists(PIXELS, min_size=1, max_size=5))
def test_model_that_takes_pixels_gets_nothing_else(pictures: list[Picture]) -> None:
    """The tensor is the images, one behind the other."""
    packed = payload(model(takes_files=False), pictures)

    assert (packed.name, packed.shape) == ("pixel_values", (len(pictures), 2, 3, 3))
    assert b"".join(packed.parts) == b"".join(bytes_of(picture) for picture in pictures)


@given(st.integers(1, 9), st.binary(max_size=400))
def test_rubbish_is_as_many_pictures_as_rows(rows: int, data: bytes) -> None:
    """Whatever a caller sends, each row gets an answer, and no byte outside the call is read."""
    packed = np.frombuffer(data[: len(data) // rows * rows], np.uint8).reshape(rows, -1)

    found = list(unpack(packed))

    assert len(found) == rows
    assert all(len(picture.data) <= packed.size for picture in found)


def test_picture_that_ends_behind_its_call_is_empty() -> None:
    """A part of a file could be decoded as if it were whole."""
    jpeg = JpegFile(memoryview(b"12345678"), 4, 3, (2, 2), 0, 0, 0)
    packed = payload(model(takes_files=True), [jpeg])
    content = np.frombuffer(b"".join(packed.parts), np.uint8)[:-1].reshape(1, -1)

    (picture,) = unpack(content)

    assert not picture.is_jpeg
    assert len(picture.data) == 0
