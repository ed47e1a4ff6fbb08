"""Tokens: made by the command, checked by the service, never shown again."""

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
# The hub's own route is open there too, and clients ask it without the token they were given.
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
    """A gateway that wants a token."""
    with gateway(stack.triton_grpc_url, GATEWAY_TOKENS_FILE=str(file)) as client:
        yield client


def classify(client: httpx.Client, authorization: str | None) -> httpx.Response:
    headers = {} if authorization is None else {"authorization": authorization}
    return client.post(MODEL, content=PICTURE, headers=headers)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer:"])
def test_token_opens_in_every_form_seen(guarded: RunningGateway, token: str, scheme: str) -> None:
    """The one of HF's documentation included, which has a colon."""
    assert classify(guarded, f"{scheme} {token}").status_code == 200


@pytest.mark.parametrize(
    ("authorization", "says"),
    [
        (None, "Invalid username or password."),
        ("Bearer hf_wrong", "Invalid username or password."),
        ("Bearer vtn_" + "A" * 43, "Invalid username or password."),
        ("Basic YWxpY2U6c2VjcmV0", "Invalid credentials in Authorization header"),
        ("Bearer", "Invalid credentials in Authorization header"),
    ],
)
def test_no_or_a_wrong_token_is_401(
    guarded: RunningGateway, authorization: str | None, says: str
) -> None:
    """With the hosted API's words and headers, on every route that needs one."""
    answer = classify(guarded, authorization)

    assert assert_error(answer, 401) == says
    assert answer.headers["www-authenticate"] == REALM
    assert answer.headers["x-error-message"] == says


def test_only_probes_and_documents_are_open(guarded: RunningGateway) -> None:
    """Health, metrics and the description; a preflight of a browser carries no token either."""
    assert {guarded.get(path).status_code for path in PROTECTED} == {401}
    assert {guarded.get(path).status_code for path in OPEN} == {200}
    preflight = guarded.options(
        MODEL, headers={"origin": "https://x", "access-control-request-method": "POST"}
    )
    assert preflight.status_code == 200


def test_description_says_what_is_open(guarded: RunningGateway) -> None:
    """For each operation: `security` is empty where no token is asked for, and nowhere else."""
    names = {"model_id": "test/vit", "task": "image-classification", "framework": "transformers"}
    document = guarded.get("/openapi.json").json()
    assert document["security"] != []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            answer = guarded.request(method, path.format(**names), content=PICTURE)
            is_open = answer.status_code != 401
            assert is_open is (operation.get("security") == []), (method, path)


def test_revoked_and_new_tokens_count_at_once(
    guarded: RunningGateway, file: Path, token: str
) -> None:
    """The file is read again when it changes; no restart."""
    other = new_token(file, "bob")
    assert classify(guarded, f"Bearer {other}").status_code == 200

    run_vitriton(["token", "revoke", "alice", "--file", str(file)], file.parent)

    assert classify(guarded, f"Bearer {token}").status_code == 401
    assert classify(guarded, f"Bearer {other}").status_code == 200


def test_file_that_breaks_leaves_the_last_good_tokens(
    guarded: RunningGateway, file: Path, token: str
) -> None:
    """Said once in the log; neither everybody nor nobody gets in."""
    file.write_text("no token\n")

    assert classify(guarded, f"Bearer {token}").status_code == 200
    assert classify(guarded, f"Bearer {token}").status_code == 200
    assert classify(guarded, None).status_code == 401
    assert sum("the previous tokens stay valid" in line for line in guarded.log) == 1


def test_anonymous_callers_can_be_let_in(stack: Stack, file: Path, token: str) -> None:
    """But a wrong token is an error, not an anonymous caller."""
    settings = {"GATEWAY_TOKENS_FILE": str(file), "GATEWAY_ALLOW_ANONYMOUS": "true"}
    with gateway(stack.triton_grpc_url, **settings) as client:
        codes = [
            classify(client, authorization).status_code
            for authorization in (None, f"Bearer {token}", "Bearer wrong")
        ]

    assert codes == [200, 200, 401]


def test_no_token_is_stored_logged_or_echoed(stack: Stack, file: Path, token: str) -> None:
    """Only its salted hash is in the file, which is its owner's alone."""
    with gateway(
        stack.triton_grpc_url, GATEWAY_TOKENS_FILE=str(file), GATEWAY_LOG_LEVEL="debug"
    ) as client:
        answers = [classify(client, f"Bearer {t}") for t in (token, f"{token}x")]

    assert [answer.status_code for answer in answers] == [200, 401]
    assert any("401" in line for line in client.log)
    said = "".join(client.log) + "".join(f"{a.text}{a.headers}" for a in answers)
    assert token not in said + file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def test_command_lists_names_and_refuses_what_cannot_be(file: Path, token: str) -> None:
    """One clear line and exit code 1; the file stays as it was."""
    before = file.read_bytes()
    listed = run_vitriton(["token", "list"], file.parent, GATEWAY_TOKENS_FILE=str(file))
    twice = run_vitriton(["token", "new", "alice", "--file", str(file)], file.parent)
    unknown = run_vitriton(["token", "revoke", "eve", "--file", str(file)], file.parent)
    nowhere = run_vitriton(["token", "list", "--file", "none.jsonl"], file.parent)

    assert listed.stdout.startswith("alice\t20")
    assert token not in listed.stdout
    for failed, says in ((twice, "alice"), (unknown, "eve"), (nowhere, "none.jsonl")):
        assert failed.returncode == 1
        assert failed.stderr.startswith("vitriton: error: ")
        assert says in failed.stderr
        assert len(failed.stderr.splitlines()) == 1
    assert file.read_bytes() == before


@pytest.mark.parametrize("content", [None, "no token\n", '{"name": "x"}\n'])
def test_unusable_file_stops_the_gateway_before_it_listens(file: Path, content: str | None) -> None:
    """Exit code 2 and one line that names the setting."""
    if content is not None:
        file.write_text(content)

    done = run_vitriton(["gateway"], file.parent, GATEWAY_TOKENS_FILE=str(file))

    assert done.returncode == 2
    assert done.stderr.startswith(f"vitriton: error: GATEWAY_TOKENS_FILE: {file}")
    assert len(done.stderr.splitlines()) == 1
