"""Released versions of @huggingface/inference, on Node."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest

from tests.clients.conftest import Guarded
from tests.clients.programs import (
    BAD_TOKEN_TEXT,
    HERE,
    LOADING_TEXT,
    SIGMOID_TOP_2,
    SIGMOID_TOP_2_QUERY,
    UNKNOWN,
    UNKNOWN_TEXT,
    Outcome,
    leave_out,
    plain_answer,
    run_job,
    url_of,
)
from tests.gateways import RunningGateway

pytestmark = pytest.mark.clients

# Names in package.json; the number is the major version of the client.
PACKAGES = ["hf-inference-2", "hf-inference-3", "hf-inference-4"]


@dataclass(frozen=True)
class Js:
    """A client that is installed."""

    node: str
    package: str
    picture: Path
    home: Path

    def do(self, scenarios: list[str], **job: Any) -> dict[str, Outcome]:
        """Run scenarios, and return the outcomes by scenario."""
        return run_job(
            [self.node, f"{HERE}/js_program.mjs"],
            {
                "package": self.package,
                "scenarios": scenarios,
                "picture": str(self.picture),
                "modelId": "test/vit",
            }
            | job,
            self.home,
        )

    @property
    def classifications(self) -> list[str]:
        """The scenarios that classify; `inputs` came with version 3."""
        newer = [] if self.package == "hf-inference-2" else ["inputs", "base64"]
        return ["bytes", "path", *newer, "parameters"]


@pytest.fixture(params=PACKAGES)
def js(request: pytest.FixtureRequest, picture: Path, tmp_path: Path) -> Js:
    """The client of each released version."""
    package: str = request.param
    node = shutil.which("node")
    if node is None:
        leave_out("node is not installed")
    if not (HERE / "node_modules" / package).is_dir():
        leave_out(f"no {package}; `make test-clients` installs it where npm is")
    return Js(node, package, picture, tmp_path)


def assert_classified(
    outcomes: dict[str, Outcome], client: httpx.Client, picture: Path, token: str | None = None
) -> None:
    """The answer has the labels, the order and the scores of plain HTTP."""
    for scenario, outcome in outcomes.items():
        parameters = SIGMOID_TOP_2 if scenario == "parameters" else {}
        wanted = plain_answer(client, picture, token=token, **parameters)
        assert outcome.get("value") == wanted, (scenario, outcome)


def test_endpoint_is_classified(js: Js, client: httpx.Client) -> None:
    """From an ArrayBuffer, Blobs with and without a type, base64, and `request` with parameters."""
    outcomes = js.do(js.classifications, url=f"{url_of(client)}/models/test/vit")

    assert_classified(outcomes, client, js.picture)


def test_parameters_go_into_the_endpoints_url(js: Js, client: httpx.Client) -> None:
    """`imageClassification` itself sends no parameters in any version."""
    url = f"{url_of(client)}/models/test/vit{SIGMOID_TOP_2_QUERY}"

    outcomes = js.do(["bytes", "path"], url=url)

    wanted = plain_answer(client, js.picture, **SIGMOID_TOP_2)
    assert [outcome.get("value") for outcome in outcomes.values()] == [wanted, wanted]


def test_model_by_id_is_classified(js: Js, client: httpx.Client) -> None:
    """The client's hosts are redirected to us; version 4 first asks the hub about the model."""
    outcomes = js.do(js.classifications, hosts=url_of(client))

    assert_classified(outcomes, client, js.picture)


@pytest.mark.parametrize("form", ["endpoint", "id"])
def test_unknown_model_is_named_to_the_user(js: Js, client: httpx.Client, form: str) -> None:
    """The error of every version has the server's words."""
    url = url_of(client)
    where = {"hosts": url} if form == "id" else {"url": f"{url}/models/{UNKNOWN}"}

    outcome = js.do(["bytes"], modelId=UNKNOWN, **where)["bytes"]

    assert UNKNOWN_TEXT in outcome["text"]
    assert outcome.get("status", 404) == 404
    assert outcome["requests"] == 1


def test_token_is_needed_where_tokens_are(js: Js, guarded: Guarded) -> None:
    """A wrong token is an error with the reason."""
    url = f"{guarded.url}/models/test/vit"

    refused = js.do(["bytes"], url=url, token="hf_wrong")["bytes"]  # noqa: S106  a wrong one
    served = js.do(["bytes"], url=url, token=guarded.token)

    assert BAD_TOKEN_TEXT in refused["text"]
    assert refused.get("status", 401) == 401
    assert_classified(served, guarded.client, js.picture, guarded.token)


def test_cold_models_answer_comes_after_few_requests(
    js: Js, cold: None, impatient: RunningGateway
) -> None:
    """Versions 2 and 3 repeat once and wait; 4 repeats at once, and the gateway delays it."""
    start = monotonic()
    outcome = js.do(["bytes"], url=f"{url_of(impatient)}/models/test/cold")["bytes"]
    refusals = outcome["requests"] - 1

    assert outcome["value"] == plain_answer(impatient, js.picture, "test/cold")
    assert 1 <= refusals <= (monotonic() - start if js.package == "hf-inference-4" else 1)


def test_client_that_does_not_retry_shows_the_reason(
    js: Js, cold: None, impatient: RunningGateway
) -> None:
    """The error has the hosted API's words."""
    url = f"{url_of(impatient)}/models/test/cold"

    outcome = js.do(["bytes"], url=url, options={"retry_on_error": False})["bytes"]

    assert LOADING_TEXT in outcome["text"]
    assert outcome.get("status", 503) == 503
