"""`vitriton token` makes tokens, and the gateway checks them and never shows them."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.gateways import RunningGateway, gateway
from tests.pictures import PICTURES
from tests.service.test_errors import assert_error
from tests.stack import Stack, run_vitriton

MODEL = "/models/test/vit"
PICTURE = PICTURES["png smaller"]
REALM = 'Bearer realm="Authentication required", charset="UTF-8"'
PROTECTED = ["/info", "/status/test/vit", "/framework/transformers", MODEL]
# This route needs no token on the hub either, and clients do not send theirs.
HUB = "/api/models/test/vit"
OPEN = ["/health", "/metrics", f"{MODEL}/health", "/", "/docs", "/openapi.json", "/ping", HUB]


def new_token(file: Path, name: str) -> str:
    done = run_vitriton(["token", "new", name, "--file", str(file)], file.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.jsonl"


@pytest.fixture
def token(file: Path) -> str:
    return new_token(file, "alice")


@pytest.fixture
def guarded(stack: Stack, file: Path, token: str) -> Iterator[RunningGateway]:
    """A gateway that requires a token."""
    with gateway(stack.triton_grpc_url, GATEWAY_TOKENS_FILE=str(file)) as client:
        yield client


def classify(client: httpx.Client, authorization: str | None) -> httpx.Response:
    headers = {} if authorization is None else {"authorization": authorization}
    return client.post(MODEL, content=PICTURE, headers=headers)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer:"])
def test_token_is_accepted_in_every_form(guarded: RunningGateway, token: str, scheme: str) -> None:
    """A valid token is accepted whatever the case of `Bearer`, and after `Bearer:`."""
    assert classify(guarded, f"{scheme} {token}").status_code == 200


@pytest.mark.parametrize(
    ("authorization", "message"),
    [
        (None, "Invalid username or password."),
        ("Bearer hf_wrong", "Invalid username or password."),
        ("Bearer vtn_" + "A" * 43, "Invalid username or password."),
        ("Basic YWxpY2U6c2VjcmV0", "Invalid credentials in Authorization header"),
        ("Bearer", "Invalid credentials in Authorization header"),
    ],
)
def test_missing_or_wrong_token_is_401(
    guarded: RunningGateway, authorization: str | None, message: str
) -> None:
    """A missing, wrong or malformed token is 401 with the hosted API's text and headers."""
    answer = classify(guarded, authorization)

    assert assert_error(answer, 401) == message
    assert answer.headers["www-authenticate"] == REALM
    assert answer.headers["x-error-message"] == message


def test_only_probes_and_documents_need_no_token(guarded: RunningGateway) -> None:
    """Health, metrics, documents and preflights need no token; everything else does."""
    assert {guarded.get(path).status_code for path in PROTECTED} == {401}
    assert {guarded.get(path).status_code for path in OPEN} == {200}
    preflight = guarded.options(
        MODEL, headers={"origin": "https://x", "access-control-request-method": "POST"}
    )
    assert preflight.status_code == 200


def test_description_marks_operations_without_a_token(guarded: RunningGateway) -> None:
    """In OpenAPI, `security` is empty exactly for operations that need no token."""
    names = {"model_id": "test/vit", "task": "image-classification", "framework": "transformers"}
    document = guarded.get("/openapi.json").json()
    assert document["security"] != []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            answer = guarded.request(method, path.format(**names), content=PICTURE)
            is_open = answer.status_code != 401
            assert is_open is (operation.get("security") == []), (method, path)


def test_token_changes_apply_without_a_restart(
    guarded: RunningGateway, file: Path, token: str
) -> None:
    """A new token is accepted and a revoked one refused, without a restart."""
    other = new_token(file, "bob")
    assert classify(guarded, f"Bearer {other}").status_code == 200

    run_vitriton(["token", "revoke", "alice", "--file", str(file)], file.parent)

    assert classify(guarded, f"Bearer {token}").status_code == 401
    assert classify(guarded, f"Bearer {other}").status_code == 200


def test_damaged_file_leaves_the_previous_tokens(
    guarded: RunningGateway, file: Path, token: str
) -> None:
    """With a damaged file, the previous tokens stay valid and one line is logged."""
    file.write_text("no token\n")

    assert classify(guarded, f"Bearer {token}").status_code == 200
    assert classify(guarded, f"Bearer {token}").status_code == 200
    assert classify(guarded, None).status_code == 401
    assert sum("the previous tokens stay valid" in line for line in guarded.log) == 1


def test_anonymous_callers_can_be_allowed(stack: Stack, file: Path, token: str) -> None:
    """With `GATEWAY_ALLOW_ANONYMOUS` a missing token is accepted, and a wrong one is 401."""
    settings = {"GATEWAY_TOKENS_FILE": str(file), "GATEWAY_ALLOW_ANONYMOUS": "true"}
    with gateway(stack.triton_grpc_url, **settings) as client:
        codes = [
            classify(client, authorization).status_code
            for authorization in (None, f"Bearer {token}", "Bearer wrong")
        ]

    assert codes == [200, 200, 401]


def test_no_token_is_stored_logged_or_echoed(stack: Stack, file: Path, token: str) -> None:
    """A token is in no log line, answer or file; only its owner may read the file."""
    with gateway(
        stack.triton_grpc_url, GATEWAY_TOKENS_FILE=str(file), GATEWAY_LOG_LEVEL="debug"
    ) as client:
        answers = [classify(client, f"Bearer {t}") for t in (token, f"{token}x")]

    assert [answer.status_code for answer in answers] == [200, 401]
    assert any("401" in line for line in client.log)
    said = "".join(client.log) + "".join(f"{a.text}{a.headers}" for a in answers)
    assert token not in said + file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def test_command_lists_names_and_refuses_bad_arguments(file: Path, token: str) -> None:
    """The command lists names, and refuses bad names and files with one line and code 1."""
    before = file.read_bytes()
    listed = run_vitriton(["token", "list"], file.parent, GATEWAY_TOKENS_FILE=str(file))
    twice = run_vitriton(["token", "new", "alice", "--file", str(file)], file.parent)
    unknown = run_vitriton(["token", "revoke", "eve", "--file", str(file)], file.parent)
    nowhere = run_vitriton(["token", "list", "--file", "none.jsonl"], file.parent)

    assert listed.stdout.startswith("alice\t20")
    assert token not in listed.stdout
    for failed, message in ((twice, "alice"), (unknown, "eve"), (nowhere, "none.jsonl")):
        assert failed.returncode == 1
        assert failed.stderr.startswith("vitriton: error: ")
        assert message in failed.stderr
        assert len(failed.stderr.splitlines()) == 1
    assert file.read_bytes() == before


@pytest.mark.parametrize("content", [None, "no token\n", '{"name": "x"}\n'])
def test_unusable_file_stops_the_gateway_before_it_listens(file: Path, content: str | None) -> None:
    """A missing or damaged file ends the gateway with code 2 and a line that names the setting."""
    if content is not None:
        file.write_text(content)

    done = run_vitriton(["gateway"], file.parent, GATEWAY_TOKENS_FILE=str(file))

    assert done.returncode == 2
    assert done.stderr.startswith(f"vitriton: error: GATEWAY_TOKENS_FILE: {file}")
    assert len(done.stderr.splitlines()) == 1
