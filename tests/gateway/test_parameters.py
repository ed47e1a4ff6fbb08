"""Flags as clients write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.tokens import bearer_token
from gateway.http.middleware import normal_path
from gateway.http.parameters import parse_flag, parse_options
from gateway.request import Options


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *((true, True) for true in ("true", "1", " TRUE ", "yes", "on", "t", "Y", True, 1)),
        *((false, False) for false in ("false", "0", "No\t", "off", "f", "N", False, 0)),
    ],
)
@pytest.mark.parametrize("default", [True, False])
def test_flag_is_understood(written: object, meant: bool, default: bool) -> None:
    """Whatever the default is."""
    assert parse_flag(written, default) is meant


@given(st.none() | st.text() | st.floats() | st.lists(st.integers()), st.booleans())
def test_no_value_of_a_flag_fails_a_request(written: object, default: bool) -> None:
    """What is not understood is the default."""
    assert parse_flag(written, default) in {True, False}


def test_header_wins_over_the_body_and_the_body_over_the_default() -> None:
    """For each flag by itself."""
    options = parse_options(
        {"x-use-cache": "true", "x-load-model": "perhaps"},
        {"use_cache": False, "wait_for_model": True, "load_model": False, "use_gpu": True},
    )

    assert options == Options(use_cache=True, wait_for_model=True, load_model=False)


@pytest.mark.parametrize(
    ("header", "options"),
    [
        (("x-use-cache", "0"), Options(use_cache=False)),
        (("x-wait-for-model", "1"), Options(wait_for_model=True)),
        (("x-load-model", "0"), Options(load_model=False)),
        (("x-scale-up-timeout", "7"), Options(scale_up_timeout_s=7.0)),
        (("x-something-else", "0"), Options()),
    ],
)
def test_each_flag_has_its_header(header: tuple[str, str], options: Options) -> None:
    """One of them alone, without a body's options."""
    assert parse_options(dict([header]), {}) == options


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("30", 30.0), ("0.5", 0.5), ("-1", None), ("nan", None), ("inf", None), ("soon", None)],
)
def test_scale_up_timeout_is_seconds(written: str, seconds: float | None) -> None:
    """Or nothing."""
    assert parse_options({"x-scale-up-timeout": written}, {}).scale_up_timeout_s == seconds


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer hf_abc", "hf_abc"),
        ("bearer  hf_abc ", "hf_abc"),
        ("BEARER api_org_x", "api_org_x"),
        ("Bearer: hf_abc", "hf_abc"),
        ("Bearer", None),
        ("Bearer two words", None),
        ("Basic dXNlcjpwYXNz", None),
        ("hf_abc", None),
        ("", None),
    ],
)
def test_authorization_header_in_every_form_seen(header: str, token: str | None) -> None:
    """The scheme in any case, and with the colon that HF's documentation has printed."""
    assert bearer_token(header) == token


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/models/a/b", "/models/a/b"),
        ("/models/a/b/", "/models/a/b"),
        ("/hf-inference/models/a/b//", "/models/a/b"),
        ("/hf-inference", "/"),
        ("/hf-inferences/models", "/hf-inferences/models"),
        ("/", "/"),
        ("//", "/"),
        ("", "/"),
    ],
)
def test_path_is_normalized(path: str, route: str) -> None:
    """The router's prefix and trailing slashes go, nothing else does."""
    assert normal_path(path) == route
