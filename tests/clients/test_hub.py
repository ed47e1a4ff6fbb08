"""Released versions of huggingface_hub, each in an environment of its own, sync and async."""

from dataclasses import dataclass
from pathlib import Path
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
    WAIT,
    Outcome,
    leave_out,
    plain_answer,
    run_job,
    url_of,
)
from tests.gateways import RunningGateway
from tests.stack import ROOT

pytestmark = pytest.mark.clients


@dataclass(frozen=True)
class Version:
    """A released client, and the features of its version."""

    number: str
    asynchronous: bool

    def __str__(self) -> str:
        return f"{self.number}-{'async' if self.asynchronous else 'sync'}"

    @property
    def release(self) -> tuple[int, ...]:
        """The version as numbers, to compare."""
        return tuple(map(int, self.number.split(".")))

    @property
    def has_endpoint_info(self) -> bool:
        """Whether it has `get_endpoint_info` and `health_check`."""
        return self.release >= (0, 23)

    @property
    def has_parameters(self) -> bool:
        """Whether it has arguments for `top_k` and `function_to_apply`."""
        return self.release >= (0, 26)

    @property
    def has_model_status(self) -> bool:
        """Whether it has `get_model_status` and `list_deployed_models`."""
        return self.release < (0, 32)

    @property
    def has_providers(self) -> bool:
        """Whether it has providers, and sends model ids to a router."""
        return self.release >= (0, 29)

    @property
    def polls(self) -> bool:
        """Whether it repeats a request after 503."""
        return self.release < (0, 29)

    @property
    def sends_ids_here(self) -> bool:
        """Whether model ids can be sent to our server; 0.28 sends them to a fixed host."""
        return self.release < (0, 28) or self.has_providers


VERSIONS = [
    Version(number, asynchronous)
    for number in sorted(path.stem for path in (HERE / "hub").glob("[0-9]*.txt"))
    for asynchronous in (False, True)
]


@dataclass(frozen=True)
class Hub:
    """A client that is installed."""

    version: Version
    folder: Path
    picture: Path
    home: Path

    def do(self, scenarios: list[str], server: str, **job: Any) -> dict[str, Outcome]:
        """Run scenarios, and return the outcomes; requests to the hub also go to the server."""
        return run_job(
            [f"{self.folder}/bin/python", f"{HERE}/hub_program.py"],
            {
                "asynchronous": self.version.asynchronous,
                "scenarios": scenarios,
                "picture": str(self.picture),
            }
            | job,
            self.home,
            HF_ENDPOINT=server,
            HF_INFERENCE_ENDPOINT=server,
        )

    @property
    def classifications(self) -> list[str]:
        """The scenarios that classify."""
        return ["bytes", "path", *(["parameters"] if self.version.has_parameters else [])]


@pytest.fixture(params=VERSIONS, ids=str)
def hub(request: pytest.FixtureRequest, picture: Path, tmp_path: Path) -> Hub:
    """The client of each released version."""
    version: Version = request.param
    folder = ROOT / ".venv.clients" / f"hub-{version.number}"
    if not (folder / ".installed").exists():
        leave_out(f"no huggingface_hub {version.number}; `make test-clients` installs it")
    return Hub(version, folder, picture, tmp_path)


def of_versions(versions: list[Version]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("hub", versions, indirect=True, ids=str)


def shown(outcome: Outcome) -> str:
    """The text of an error that a user sees; aiohttp has the server's words in an attribute."""
    return f"{outcome['text']} {outcome['payload']}"


def assert_classified(
    outcomes: dict[str, Outcome], client: httpx.Client, picture: Path, token: str | None = None
) -> None:
    """The answer has the labels, the order and the scores of plain HTTP."""
    for scenario, outcome in outcomes.items():
        parameters = SIGMOID_TOP_2 if scenario == "parameters" else {}
        wanted = plain_answer(client, picture, token=token, **parameters)
        assert outcome == {"value": wanted}, scenario


def test_model_by_url_is_classified(hub: Hub, client: httpx.Client) -> None:
    """From bytes, from a path, and with parameters if the version has them."""
    url = url_of(client)

    outcomes = hub.do(hub.classifications, url, client={"model": f"{url}/models/test/vit"})

    assert_classified(outcomes, client, hub.picture)


def test_parameters_go_into_the_url_of_every_version(hub: Hub, client: httpx.Client) -> None:
    """Also with versions that have no argument for them."""
    url = url_of(client)
    model = f"{url}/models/test/vit{SIGMOID_TOP_2_QUERY}"

    outcomes = hub.do(["bytes", "path"], url, client={"model": model})

    wanted = {"value": plain_answer(client, hub.picture, **SIGMOID_TOP_2)}
    assert outcomes == {"bytes": wanted, "path": wanted}


@of_versions([version for version in VERSIONS if version.sends_ids_here])
def test_model_by_id_is_classified(hub: Hub, client: httpx.Client) -> None:
    """By `HF_INFERENCE_ENDPOINT`, or with the router's URL patched."""
    url = url_of(client)
    providers = [None, "hf-inference"] if hub.version.has_providers else [None]
    router = f"{url}/hf-inference" if hub.version.has_providers else None

    for provider in providers:
        arguments = {"model": "test/vit"} | ({} if provider is None else {"provider": provider})
        outcomes = hub.do(hub.classifications, url, client=arguments, router=router)
        assert_classified(outcomes, client, hub.picture)


def test_unknown_model_is_named_to_the_user(hub: Hub, client: httpx.Client) -> None:
    """The error of every version has the server's words."""
    url = url_of(client)

    outcome = hub.do(["bytes"], url, client={"model": f"{url}/models/{UNKNOWN}"})["bytes"]

    assert outcome["status"] == 404
    assert UNKNOWN_TEXT in shown(outcome)


def test_token_is_needed_where_tokens_are(hub: Hub, guarded: Guarded) -> None:
    """A wrong token is 401 with the reason; 0.17 reports a repository that is not found."""
    model = f"{guarded.url}/models/test/vit"

    refused = hub.do(["bytes"], guarded.url, client={"model": model, "token": "hf_wrong"})["bytes"]
    served = hub.do(["bytes"], guarded.url, client={"model": model, "token": guarded.token})

    assert refused["status"] == 401
    assert BAD_TOKEN_TEXT in shown(refused)
    assert_classified(served, guarded.client, hub.picture, guarded.token)


@of_versions([version for version in VERSIONS if version.polls])
def test_polling_version_gets_a_cold_models_answer(
    hub: Hub, cold: None, impatient: RunningGateway
) -> None:
    """The gateway refuses the first request."""
    url = url_of(impatient)

    outcomes = hub.do(["bytes"], url, client={"model": f"{url}/models/test/cold"})

    assert outcomes["bytes"] == {"value": plain_answer(impatient, hub.picture, "test/cold")}


@of_versions([version for version in VERSIONS if not version.polls])
def test_version_that_does_not_poll_shows_the_reason(
    hub: Hub, cold: None, impatient: RunningGateway
) -> None:
    """It gets the answer if it asks the server to wait."""
    url = url_of(impatient)
    model = {"model": f"{url}/models/test/cold"}

    refused = hub.do(["bytes"], url, client=model)["bytes"]
    waited = hub.do(["bytes"], url, client=model | {"headers": WAIT})["bytes"]

    assert refused["status"] == 503
    assert LOADING_TEXT in shown(refused)
    assert waited == {"value": plain_answer(impatient, hub.picture, "test/cold")}


@of_versions([version for version in VERSIONS if not version.polls])
def test_cold_model_answers_without_an_option_to_wait(
    hub: Hub, cold: None, patient: RunningGateway
) -> None:
    """The gateway's default wait is long enough."""
    url = url_of(patient)

    outcomes = hub.do(["bytes"], url, client={"model": f"{url}/models/test/cold"})

    assert outcomes["bytes"] == {"value": plain_answer(patient, hub.picture, "test/cold")}


@of_versions([version for version in VERSIONS if version.has_model_status])
def test_model_status_and_deployed_models_are_understood(hub: Hub, client: httpx.Client) -> None:
    """For a model that is served, and for one that does not exist."""
    url = url_of(client)

    outcomes = hub.do(["model_status", "deployed_models"], url, client={}, model_id="test/vit")
    unknown = hub.do(["model_status"], url, client={}, model_id=UNKNOWN)["model_status"]

    status = client.get("/status/test/vit").json()
    deployed = [model["model_id"] for model in client.get("/framework/transformers").json()]
    assert status["loaded"]
    assert outcomes["model_status"] == {"value": status}
    assert outcomes["deployed_models"] == {"value": {"image-classification": sorted(deployed)}}
    assert unknown["status"] == 404


@of_versions([version for version in VERSIONS if version.has_endpoint_info])
def test_endpoint_info_and_health_are_understood(hub: Hub, client: httpx.Client) -> None:
    """For a model, for the endpoint, and for a model that does not exist."""
    url = url_of(client)
    provider = {"provider": "hf-inference"} if hub.version.has_providers else {}

    def ask(model: str) -> dict[str, Outcome]:
        arguments = {"model": model} | provider
        return hub.do(["endpoint_info", "health_check"], url, client=arguments)

    for path in ("", "/models/test/vit"):
        outcomes = ask(f"{url}{path}")
        assert outcomes["endpoint_info"] == {"value": client.get(f"{path}/info").json()}
        assert outcomes["health_check"] == {"value": True}
    unknown = ask(f"{url}/models/{UNKNOWN}")
    assert unknown["endpoint_info"]["status"] == 404
    assert unknown["health_check"] == {"value": False}
