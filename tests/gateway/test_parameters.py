"""Flags, tokens and paths are read in every form that clients write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.tokens import bearer_token
from gateway.http.middleware import normal_path
from gateway.http.parameters import parse_flag, parse_options
from gateway.request import Options


@pytest.mark.parametrize(
    ("written", "value"),
    [
        *((true, True) for true in ("true", "1", " TRUE ", "yes", "on", "t", "Y", True, 1)),
        *((false, False) for false in ("false", "0", "No\t", "off", "f", "N", False, 0)),
    ],
)
@pytest.mark.parametrize("default", [True, False])
def test_flag_is_read_in_every_form(written: object, value: bool, default: bool) -> None:
    """Every form of true and false is understood, whatever the default."""
    assert parse_flag(written, default) is value


@given(st.none() | st.text() | st.floats() | st.lists(st.integers()), st.booleans())
def test_flag_with_any_value_is_true_or_false(written: object, default: bool) -> None:
    """A flag with any value is true or false; no value raises an error."""
    assert parse_flag(written, default) in {True, False}


def test_header_wins_over_the_body_and_the_body_over_the_default() -> None:
    """Each option comes from its header, else from the body, else from the default."""
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
def test_each_option_has_a_header(header: tuple[str, str], options: Options) -> None:
    """Each option can be set by its header alone."""
    assert parse_options(dict([header]), {}) == options


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("30", 30.0), ("0.5", 0.5), ("-1", None), ("nan", None), ("inf", None), ("soon", None)],
)
def test_scale_up_timeout_is_seconds(written: str, seconds: float | None) -> None:
    """`x-scale-up-timeout` is a positive number of seconds; other values are ignored."""
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
def test_bearer_token_is_found_in_every_form(header: str, token: str | None) -> None:
    """A bearer token is found whatever the case of the scheme, also after `Bearer:`."""
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
    """The router's prefix and trailing slashes are removed, and nothing else is."""
    assert normal_path(path) == route
