"""What our Triton backend reads from a model's configuration."""

import json
from typing import Any

import pytest

from deploy.triton_backend.configuration import read_configuration

CONTRACT = {
    "preprocessing": {"resample": "bicubic", "color": "L"},
    "input_size": {"height": 4, "width": 5},
}


def config(**changes: Any) -> dict[str, Any]:
    return {
        "input": [{"name": "pixel_values", "dims": [2, 3, 3]}],
        "output": [{"name": "logits"}],
        "parameters": {},
        "max_batch_size": 8,
        "instance_group": [{"count": 2}],
    } | changes


def test_shape_of_pixels_is_that_of_the_input() -> None:
    """NVIDIA's libtorch backend reads the same configuration."""
    found = read_configuration(config())

    assert not found.takes_files
    assert found.input_shape == (2, 3, 3)
    assert (found.most_images, found.model_file) == (8, "model.pt")
    assert (found.threads, found.cuda_graph_sizes) == (None, [])


def test_shape_for_files_is_that_of_the_contract() -> None:
    """Files have no shape, so size, colour and filter come from the contract."""
    found = read_configuration(
        config(
            input=[{"name": "image", "dims": [-1]}],
            parameters={
                "vitriton": {"string_value": json.dumps(CONTRACT)},
                "CUDA_GRAPH_BATCH_SIZES": {"string_value": "1,2, 8"},
                "INTRA_OP_THREAD_COUNT": {"string_value": "1"},
            },
        )
    )

    assert found.takes_files
    assert (found.input_shape, found.resample) == ((4, 5, 1), "bicubic")
    assert (found.cuda_graph_sizes, found.threads) == ([1, 2, 8], 1)


@pytest.mark.parametrize(
    ("groups", "instances"),
    [
        ([{"count": 2}], 2),
        ([{"count": 1}, {"count": 3}], 4),
        ([{"count": 2, "gpus": [0, 1, 2, 3]}], 8),
    ],
)
def test_instances_are_those_on_all_devices(groups: list[dict[str, Any]], instances: int) -> None:
    """They share the machine's threads, and Triton starts `count` of them on each GPU."""
    assert read_configuration(config(instance_group=groups)).instances == instances


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input": []}, "one input, this one has 0"),
        ({"output": [{"name": "a"}, {"name": "b"}]}, "one output, this one has 2"),
        ({"input": [{"name": "image", "dims": [-1]}]}, "needs the parameter `vitriton`"),
    ],
)
def test_configuration_that_cannot_be_served_is_refused(
    changes: dict[str, Any], words: str
) -> None:
    """Triton reports the reason."""
    with pytest.raises(ValueError, match=words):
        read_configuration(config(**changes))
