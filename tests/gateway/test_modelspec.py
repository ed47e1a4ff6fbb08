"""A contract is read as it was written, and model ids map to Triton's names and back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.modelspec import (
    InvalidContract,
    LowPrecision,
    ModelSpec,
    Parity,
    Preprocessing,
    Shares,
    Size,
    is_model_id,
    model_id_of,
    parse_model_spec,
    triton_model_name,
)

positive = st.integers(1, 10_000)
sizes = st.builds(Size, height=positive, width=positive)
floats = st.floats(0, 1)
shares = st.floats(0, 1, exclude_min=True)
specs = st.builds(
    ModelSpec,
    id2label=st.lists(st.text(), min_size=1).map(tuple),
    preprocessing=st.builds(
        Preprocessing,
        first_crop=st.none() | st.builds(Shares, height=shares, width=shares),
        resize=st.none() | sizes,
        shortest_edge=st.none() | positive,
        center_crop=st.none() | sizes,
    ),
    input_size=sizes,
    parity=st.builds(
        Parity,
        batch_sizes=st.lists(positive).map(tuple),
        max_abs_logit_difference=floats,
        tolerance=floats,
    ),
)
model_ids = st.from_regex(
    r"[A-Za-z0-9_](-?[A-Za-z0-9._])*(/[A-Za-z0-9_](-?[A-Za-z0-9._])*)?", fullmatch=True
).filter(is_model_id)


@given(specs)
def test_written_contract_is_parsed_back(spec: ModelSpec) -> None:
    """A contract with any fields and labels equals itself after writing and parsing."""
    assert parse_model_spec(spec.model_dump_json()) == spec


@given(specs, st.builds(LowPrecision))
def test_older_contract_was_measured_on_the_cpu(spec: ModelSpec, report: LowPrecision) -> None:
    """Exporters before the field `device` measured half precision without naming the device."""
    figures = report.model_dump(exclude={"device"})
    older = spec.model_dump(mode="json") | {"low_precision": figures}

    read = parse_model_spec(json.dumps(older)).low_precision

    assert read == LowPrecision(device="cpu", **figures)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model_id": 5}', "{"])
def test_other_text_is_an_invalid_contract(text: str) -> None:
    """Text that is not JSON, or lacks fields, raises `InvalidContract`."""
    with pytest.raises(InvalidContract):
        parse_model_spec(text)


@given(model_ids)
def test_triton_name_maps_back_to_the_model_id(model_id: str) -> None:
    """A model id becomes a single folder name, which maps back to the id."""
    name = triton_model_name(model_id)

    assert "/" not in name
    assert model_id_of(name) == model_id


@pytest.mark.parametrize(
    ("model_id", "valid"),
    [
        ("google/vit-base-patch16-224", True),
        ("vit", True),
        ("a/b/c", False),
        ("a--b", False),
        ("../b", False),
        ("", False),
        ("a b", False),
        ("a/", False),
        ("x" * 97, False),
    ],
)
def test_model_id_follows_the_hubs_rule(model_id: str, valid: bool) -> None:
    """An id is valid by the hub's rule, so no id can leave the repository's folder."""
    assert is_model_id(model_id) == valid
