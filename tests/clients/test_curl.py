"""curl, as the README and Hugging Face's documentation use it."""

import base64
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients.conftest import Guarded
from tests.clients.programs import (
    BAD_TOKEN_TEXT,
    SIGMOID_TOP_2,
    SIGMOID_TOP_2_QUERY,
    UNKNOWN,
    UNKNOWN_TEXT,
    leave_out,
    plain_answer,
    run,
    url_of,
)
from tests.gateways import RunningGateway

pytestmark = pytest.mark.clients


@dataclass(frozen=True)
class Curl:
    """The program curl, and the picture that it sends."""

    program: str
    picture: Path
    home: Path

    def do(self, url: str, *arguments: str) -> tuple[int, Any]:
        """Run curl; return the status and the JSON of the last answer."""
        output = self.home / "answer.json"
        writing = ["--output", str(output), "--write-out", "%{http_code}"]
        status = run([self.program, "--silent", *writing, *arguments, url], self.home)
        return int(status), json.loads(output.read_text())

    @property
    def body(self) -> list[str]:
        """The arguments that the README sends a picture with."""
        return ["--data-binary", f"@{self.picture}"]


@pytest.fixture
def curl(picture: Path, tmp_path: Path) -> Curl:
    """The curl that is installed on this machine."""
    program = shutil.which("curl")
    if program is None:
        leave_out("curl is not installed")
    return Curl(program, picture, tmp_path)


def test_file_is_classified_in_every_form(curl: Curl, client: httpx.Client) -> None:
    """As a body with the right type or curl's default, as an upload, and as a form."""
    url = f"{url_of(client)}/models/test/vit"
    forms = [
        curl.body,
        [*curl.body, "--header", "Content-Type: image/png"],
        ["--upload-file", str(curl.picture), "--request", "POST"],
        ["--form", f"file=@{curl.picture}"],
    ]

    answers = [curl.do(url, *form) for form in forms]

    assert answers == [(200, plain_answer(client, curl.picture))] * len(forms)


def test_parameters_come_in_the_url_or_in_json(curl: Curl, client: httpx.Client) -> None:
    """The answer is the same both ways."""
    url = f"{url_of(client)}/models/test/vit"
    inputs = base64.b64encode(curl.picture.read_bytes()).decode()
    parameters = {"top_k": 2, "function_to_apply": "sigmoid"}
    body = curl.home / "body.json"
    body.write_text(json.dumps({"inputs": inputs, "parameters": parameters}))

    raw = curl.do(f"{url}{SIGMOID_TOP_2_QUERY}", *curl.body)
    sent = curl.do(url, "--header", "Content-Type: application/json", "--data", f"@{body}")

    assert raw == sent == (200, plain_answer(client, curl.picture, **SIGMOID_TOP_2))


def test_unknown_model_is_named_to_the_user(curl: Curl, client: httpx.Client) -> None:
    """The body names the model."""
    status, error = curl.do(f"{url_of(client)}/models/{UNKNOWN}", *curl.body)

    assert (status, error["error"]) == (404, UNKNOWN_TEXT)


def test_token_is_needed_where_tokens_are(curl: Curl, guarded: Guarded) -> None:
    """The token goes in the hosted API's header."""
    url = f"{guarded.url}/models/test/vit"

    def classify(token: str) -> tuple[int, Any]:
        return curl.do(url, *curl.body, "--header", f"Authorization: Bearer {token}")

    status, error = classify("hf_wrong")

    assert (status, error["error"]) == (401, BAD_TOKEN_TEXT)
    assert classify(guarded.token) == (
        200,
        plain_answer(guarded.client, curl.picture, token=guarded.token),
    )


# The order matters: curl waits as long as the refusal says, 20 s until a load has been timed.
@pytest.mark.parametrize("form", ["--header X-Wait-For-Model:true", "--retry 5"])
def test_client_that_waits_gets_the_answer_of_a_cold_model(
    curl: Curl, cold: None, impatient: RunningGateway, form: str
) -> None:
    """The client waits by the header, or by `--retry`, which waits as long as the refusal says."""
    url = f"{url_of(impatient)}/models/test/cold"

    answer = curl.do(url, *curl.body, *form.split())

    assert answer == (200, plain_answer(impatient, curl.picture, "test/cold"))


def test_health_and_info_are_plain_gets(curl: Curl, client: httpx.Client) -> None:
    """Both exist for the endpoint and for a model."""
    for path in ("/info", "/models/test/vit/info", "/status/test/vit"):
        assert curl.do(f"{url_of(client)}{path}") == (200, client.get(path).json())
    assert curl.do(f"{url_of(client)}/health")[0] == 200
