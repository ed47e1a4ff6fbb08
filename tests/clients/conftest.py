"""The picture that clients send, and the gateways that they send it to."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import tritonclient.grpc

from tests.clients.programs import url_of
from tests.gateways import RunningGateway, gateway
from tests.pictures import PICTURES
from tests.service.test_cold_start import unload
from tests.service.test_tokens import new_token
from tests.stack import Stack


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a picture."""
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    path.write_bytes(PICTURES["png smaller"])
    return path


@dataclass(frozen=True)
class Guarded:
    """A gateway that requires a token, and a valid token."""

    client: httpx.Client
    token: str

    @property
    def url(self) -> str:
        """The gateway's URL."""
        return url_of(self.client)


@pytest.fixture(scope="session")
def guarded(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A gateway that requires a token."""
    file = tmp_path_factory.mktemp("tokens") / "tokens.jsonl"
    token = new_token(file, "alice")
    with gateway(stack.triton_grpc_url, GATEWAY_TOKENS_FILE=str(file)) as client:
        yield Guarded(client, token)


@pytest.fixture
def cold(stack: Stack) -> None:
    """Unload `test/cold`."""
    with tritonclient.grpc.InferenceServerClient(stack.triton_grpc_url) as triton:
        unload(triton)


@pytest.fixture(scope="session")
def patient(stack: Stack) -> Iterator[RunningGateway]:
    """A gateway with the default wait for a cold model, and no cache."""
    with gateway(stack.triton_grpc_url, GATEWAY_CACHE_BYTES="0") as client:
        yield client


@pytest.fixture(scope="session")
def impatient(stack: Stack) -> Iterator[RunningGateway]:
    """A gateway with the shortest wait for a cold model, and no cache."""
    settings = {"GATEWAY_CACHE_BYTES": "0", "GATEWAY_COLD_START_WAIT_S": "1"}
    with gateway(stack.triton_grpc_url, **settings) as client:
        yield client
