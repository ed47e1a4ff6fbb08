"""A model that takes files gets JPEGs, and answers as a model that takes pixels does.

Triton decodes on the CPU here; on a GPU only nvImageCodec's decoder is another one.
"""

import base64
import re
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from gateway.errors import ModelNotReady
from gateway.imaging.images import decode
from gateway.imaging.jpeg_for_triton import jpeg_for_triton
from gateway.modelspec import ModelSpec, Preprocessing, Size
from gateway.tensors import Picture
from gateway.triton.client import LoadedModel
from gateway.triton.failures import translate_failure
from gateway.triton.payload import payload
from tests.gateways import gateway
from tests.jpeg_profile import CPU_JPEG, repository_with_cpu_jpeg
from tests.pictures import PICTURES, encode, gradient, photo, rotated
from tests.service.test_operations import samples
from tests.stack import Stack, running_stack

pytestmark = pytest.mark.jpegs

VIT = "/models/test/vit"
NO_CACHE = {"x-use-cache": "false"}
FORMS = ("jpeg", "pixels")
LIMIT = 10_000_000
STEPS = Preprocessing(resize=Size(height=224, width=224), resample="bilinear")
TAKES_FILES = LoadedModel(
    ModelSpec.model_construct(preprocessing=STEPS),  # type: ignore[call-arg]  # no other is read
    *("test--vit", "contract", "cpu", 8, True),
)
MODELS = ["/models/test/vit", "/models/test/deit-distilled", "/models/vitriton/vit-digits"]
# Against mode `reference`, from which `fast` is up to 2e-2 away for these pictures and models with
# random weights. Seen: up to 3.7e-3.
TOLERANCE = 5e-3
# Between two batches of the same images.
ROUNDING = 1e-5
GOOD = photo("china")

TO_TRITON = {
    "photo": GOOD,
    "4:4:4": encode(gradient(300, 200), "JPEG", subsampling=0),
    "4:2:2": encode(gradient(300, 200), "JPEG", subsampling=1),
    "grey": encode(gradient(300, 200).convert("L"), "JPEG"),
    "restart markers": encode(gradient(300, 200), "JPEG", restart_marker_blocks=3),
    "small": encode(gradient(9, 5), "JPEG"),
    "bytes behind the end": GOOD + b"more bytes",
    **{f"exif {orientation}": rotated(orientation) for orientation in range(1, 9)},
}
OTHERS = {
    "progressive": encode(gradient(300, 200), "JPEG", progressive=True),
    **{name: PICTURES[name] for name in PICTURES if "photo" not in name and "exif" not in name},
}


def without_segment(jpeg: bytes, marker: int) -> bytes:
    """The JPEG without its segments of a kind."""
    while (at := jpeg.find(bytes([0xFF, marker]))) >= 0:
        jpeg = jpeg[:at] + jpeg[at + 2 + struct.unpack_from(">H", jpeg, at + 2)[0] :]
    return jpeg


def with_stray_bytes(jpeg: bytes) -> bytes:
    """The JPEG with bytes before its second marker. Pillow skips these, and others do not."""
    at = 4 + struct.unpack_from(">H", jpeg, 4)[0]
    return jpeg[:at] + b"\x00\x01" + jpeg[at:]


# No decoder has a table to read this file by; it has a head and an end as a good file has.
UNREADABLE = without_segment(GOOD, 0xDB)


def undecodable(stack: Stack, model: str) -> int:
    """JPEGs that Triton could not decode, in its own count."""
    text = httpx.get(stack.triton_metrics_url).text
    name = f'vitriton_undecodable_jpegs_total{{model="{model}",version="1"}}'
    match = re.search(rf"^{re.escape(name)} (\d+)", text, re.MULTILINE)
    assert match, text
    return int(match[1])


@pytest.fixture(scope="module")
def jpeg_stack(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """`vitriton serve` in image mode `fast`, with models that take files."""
    folder = tmp_path_factory.mktemp("jpegs")
    target = repository_with_cpu_jpeg(repository, folder / "models")
    models = [path.removeprefix("/models/") for path in MODELS]
    with running_stack(models, target, folder, profile=CPU_JPEG) as running:
        yield running


@pytest.fixture(scope="module")
def jpegs(jpeg_stack: Stack) -> Iterator[httpx.Client]:
    """A client of that stack, whose answers come from no cache."""
    with httpx.Client(base_url=jpeg_stack.url, timeout=60, headers=NO_CACHE) as http:
        yield http


@pytest.fixture(scope="module")
def pixels(stack: Stack) -> Iterator[httpx.Client]:
    """A client of a gateway in image mode `fast`, for models that take pixels."""
    with gateway(stack.triton_grpc_url, GATEWAY_DECODE="fast") as client:
        client.headers.update(NO_CACHE)
        yield client


def scores(client: httpx.Client, model: str, data: bytes) -> dict[str, float]:
    answer = client.post(model, content=data, params={"top_k": 1000})
    assert answer.status_code == 200, answer.text
    return {element["label"]: element["score"] for element in answer.json()}


def sent(client: httpx.Client) -> tuple[int, int]:
    """Images sent to Triton so far, as JPEGs and as pixels."""
    found = samples(client)
    jpeg, pixel = (found[f"gateway_images_sent_total[('form', '{f}')]"] for f in FORMS)
    return int(jpeg), int(pixel)


def difference(found: dict[str, float], wanted: dict[str, float]) -> float:
    """The largest difference between two answers with the same labels."""
    assert found.keys() == wanted.keys()
    return max(abs(found[label] - wanted[label]) for label in wanted)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", TO_TRITON)
def test_jpegs_have_the_scores_of_pixels(
    name: str, model: str, jpegs: httpx.Client, client: httpx.Client
) -> None:
    """Every sampling, grey, all eight orientations; exact size, and shorter side with crop."""
    before = sent(jpegs)

    found, wanted = (scores(each, model, TO_TRITON[name]) for each in (jpegs, client))

    assert sent(jpegs) == (before[0] + 1, before[1]), "the gateway has decoded it"
    assert max(found, key=found.__getitem__) == max(wanted, key=wanted.__getitem__)
    assert difference(found, wanted) < TOLERANCE


@pytest.mark.parametrize("name", OTHERS)
def test_everything_else_is_sent_as_pixels(
    name: str, jpegs: httpx.Client, pixels: httpx.Client
) -> None:
    """Progressive and CMYK JPEGs and all other formats: the gateway decodes them, as ever."""
    before = sent(jpegs)

    found, wanted = (scores(client, VIT, OTHERS[name]) for client in (jpegs, pixels))

    assert sent(jpegs) == (before[0], before[1] + 1)
    assert difference(found, wanted) < ROUNDING


@pytest.mark.parametrize("length", [2, 300, 700, 20_000, len(GOOD) - 2, len(GOOD) - 1])
def test_truncated_file_is_refused_as_without_triton(
    length: int, jpegs: httpx.Client, pixels: httpx.Client
) -> None:
    """The engines of a GPU take some truncated files for whole ones, so Triton gets none."""
    before = sent(jpegs)

    found, wanted = (client.post(VIT, content=GOOD[:length]) for client in (jpegs, pixels))

    assert (found.status_code, found.json()) == (wanted.status_code, wanted.json())
    assert found.status_code == 400
    assert sent(jpegs) == before


@pytest.mark.parametrize("data", [UNREADABLE, with_stray_bytes(GOOD)], ids=["bad", "stray bytes"])
def test_pillow_decides_about_a_file_that_triton_cannot_decode(
    data: bytes, jpeg_stack: Stack, jpegs: httpx.Client, pixels: httpx.Client
) -> None:
    """It is refused or answered as for a model that takes pixels, and Triton counts it."""
    before = undecodable(jpeg_stack, "test--vit")

    found, wanted = (
        client.post(VIT, content=data, params={"top_k": 1}) for client in (jpegs, pixels)
    )

    assert undecodable(jpeg_stack, "test--vit") == before + 1
    assert (found.status_code, found.json()) == (wanted.status_code, wanted.json())


def test_corrupt_image_among_good_ones_fails_alone(jpegs: httpx.Client) -> None:
    """32 clients at a time, most of which share batches with the one whose file is corrupt."""
    wanted = scores(jpegs, VIT, GOOD)
    files = [GOOD] * 17 + [UNREADABLE] + [GOOD] * 14

    with ThreadPoolExecutor(len(files)) as clients:
        answers = list(clients.map(lambda data: jpegs.post(VIT, content=data), files * 3))

    assert [answer.status_code for answer in answers] == ([200] * 17 + [400] + [200] * 14) * 3
    for answer in answers:
        if answer.status_code == 200:
            best = {element["label"]: element["score"] for element in answer.json()}
            assert best == pytest.approx({label: wanted[label] for label in best}, abs=ROUNDING)


def infer(stack: Stack, packed: "np.ndarray[Any, np.dtype[np.uint8]]") -> Any:
    """Triton's own answer to bytes, shape `(pictures, bytes)`."""
    tensor = tritonclient.grpc.InferInput("image", list(packed.shape), "UINT8")
    tensor.set_data_from_numpy(packed)
    with tritonclient.grpc.InferenceServerClient(stack.triton_grpc_url) as triton:
        return triton.infer("test--vit", [tensor]).as_numpy("logits")


def packed(pictures: list[Picture]) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    content = payload(TAKES_FILES, pictures)
    return np.frombuffer(b"".join(content.parts), np.uint8).reshape(content.shape)


def test_one_call_has_pictures_of_all_kinds(jpeg_stack: Stack) -> None:
    """In one call each picture has the logits that it has alone, and a bad one has none."""
    files = [jpeg_for_triton(data, STEPS, LIMIT) for data in [*TO_TRITON.values(), UNREADABLE]]
    pictures: list[Picture] = [file for file in files if file is not None]
    pictures.insert(2, decode(PICTURES["png larger"], STEPS, LIMIT, "fast"))
    pictures = pictures[:2] + pictures[-1:] + pictures[2:-1][:5]
    alone = [infer(jpeg_stack, packed([picture]))[0] for picture in pictures]

    together = infer(jpeg_stack, packed(pictures))

    bad = np.isnan(together).all(axis=1)
    assert bad.tolist() == [index == 2 for index in range(len(pictures))]
    np.testing.assert_allclose(together, np.stack(alone), rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 40)])
def test_rubbish_from_another_caller_of_triton_has_no_logits(
    shape: tuple[int, int], jpeg_stack: Stack, jpegs: httpx.Client
) -> None:
    """Bytes in another layout are pictures that cannot be decoded; the model serves on."""
    logits = infer(jpeg_stack, np.full(shape, 255, np.uint8))

    assert logits.shape == (shape[0], 12)
    assert np.isnan(logits).all()
    assert scores(jpegs, VIT, GOOD)


def test_mode_reference_sends_pixels(jpeg_stack: Stack, client: httpx.Client) -> None:
    """Only Pillow is bit-equal to transformers, also for a model that takes files."""
    with gateway(jpeg_stack.triton_grpc_url, GATEWAY_DECODE="reference") as exact:
        found, wanted = (scores(each, VIT, GOOD) for each in (exact, client))

        assert sent(exact) == (0, 1)
        assert difference(found, wanted) < ROUNDING


def test_limits_are_checked_before_triton(jpeg_stack: Stack, stack: Stack) -> None:
    """The size in a JPEG's header is refused with the message of the other models."""
    limit = {"GATEWAY_MAX_IMAGE_PIXELS": "10000"}
    with (
        gateway(jpeg_stack.triton_grpc_url, **limit) as files,
        gateway(stack.triton_grpc_url, **limit) as others,
    ):
        found, wanted = (each.post(VIT, content=GOOD) for each in (files, others))

        assert (found.status_code, found.json()) == (wanted.status_code, wanted.json())
        assert "10000" in found.json()["error"]
        assert sent(files) == (0, 0)


def test_list_of_images_mixes_jpegs_and_pixels(jpegs: httpx.Client) -> None:
    """Each element of `inputs` has the answer that it has alone."""
    pictures = [GOOD, PICTURES["png smaller"], rotated(6), OTHERS["progressive"]]
    inputs = [base64.b64encode(data).decode() for data in pictures]
    alone = [jpegs.post(VIT, content=data).json()[0] for data in pictures]

    answer = jpegs.post(VIT, json={"inputs": inputs})

    assert [each[0]["label"] for each in answer.json()] == [each["label"] for each in alone]


@pytest.mark.parametrize("wrong", ["name", "shape"])
def test_triton_names_an_input_of_another_model_as_the_gateway_expects(
    wrong: str, jpeg_stack: Stack, stack: Stack
) -> None:
    """The gateway knows by Triton's words that a model was replaced, and reads its contract."""
    url = (jpeg_stack if wrong == "name" else stack).triton_grpc_url
    tensor = tritonclient.grpc.InferInput("pixel_values", [1, 100, 100, 3], "UINT8")
    tensor.set_data_from_numpy(np.zeros((1, 100, 100, 3), np.uint8))
    with (
        tritonclient.grpc.InferenceServerClient(url) as triton,
        pytest.raises(InferenceServerException) as raised,
    ):
        triton.infer("test--vit", [tensor])

    code = raised.value.status().removeprefix("StatusCode.")
    error = translate_failure(code, raised.value.message(), "test/vit", url)
    assert isinstance(error, ModelNotReady)
