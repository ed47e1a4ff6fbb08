"""`vitriton serve` from outside: it stops completely, and fails with one clear line."""

import asyncio
import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc
from safetensors.torch import load_file, save_file

from deploy.local.model_selection import HUB_MODEL, prepare_models
from exporter.config_pbtxt import ServingOptions
from exporter.export import ExportRequest, export_model
from exporter.repository import versions_of
from tests.hub import hub, hub_environment
from tests.pictures import photo
from tests.stack import (
    ROOT,
    STOP_TIMEOUT_S,
    Stack,
    all_lines,
    output_of_failed_serve,
    run_python,
    run_vitriton,
    running_stack,
    start_serve,
)

DEMO = "vitriton/vit-digits"
TRITON = "tritonserver"
STUB = "triton_python_b"
SHM = Path("/dev/shm")


@pytest.fixture
def one_model(demo_repository: Path, tmp_path: Path) -> Iterator[Stack]:
    """A stack that the test ends itself."""
    with running_stack([DEMO], demo_repository, tmp_path) as stack:
        yield stack


def error_lines(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("vitriton: error: ")]


def regions_of(stack: Stack) -> list[Path]:
    return list(SHM.glob(f"vitriton-{stack.process.pid}-*"))


def assert_nothing_left(stack: Stack, processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=STOP_TIMEOUT_S)
    assert alive == []
    assert regions_of(stack) == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{stack.url}/health")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_everything(one_model: Stack, number: signal.Signals) -> None:
    """Exit code 0, no process, no shared memory and no open port remain."""
    processes = one_model.processes()
    assert len(processes) >= 4
    assert regions_of(one_model) != []

    assert one_model.stop(number) == 0

    assert_nothing_left(one_model, processes)


def test_killed_runner_takes_its_children_along(one_model: Stack) -> None:
    """Even SIGKILL leaves no orphan; Triton clears its own shared memory then."""
    processes = one_model.processes()

    assert one_model.stop(signal.SIGKILL) == -signal.SIGKILL

    assert_nothing_left(one_model, processes)


def test_request_in_flight_is_finished_before_the_stop(one_model: Stack) -> None:
    """A body that is still arriving when SIGTERM comes gets its answer."""
    picture = photo("china")
    with socket.create_connection(("127.0.0.1", httpx.URL(one_model.url).port or 0)) as sock:
        sock.settimeout(STOP_TIMEOUT_S)
        head = f"POST /models/{DEMO} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(picture)}\r\n\r\n"
        sock.sendall(head.encode() + picture[:1000])
        wait_for_inflight(one_model)
        one_model.process.send_signal(signal.SIGTERM)
        sock.sendall(picture[1000:])
        answer = sock.recv(65536)

    assert answer.startswith(b"HTTP/1.1 200")
    assert one_model.process.wait(STOP_TIMEOUT_S) == 0


def wait_for_inflight(stack: Stack) -> None:
    """Wait until the gateway has a request in flight besides the one for its metrics."""
    for _ in range(1000):
        if "gateway_inflight_requests 2.0" in httpx.get(f"{stack.url}/metrics").text:
            return
    pytest.fail("the request never arrived")


@pytest.mark.parametrize(
    ("victim", "says"),
    [
        (TRITON, "Triton ended by signal SIGKILL"),
        (STUB, "a model's process in Triton ended"),
        ("python", "the gateway ended by signal SIGKILL"),
    ],
)
def test_death_of_a_part_ends_the_whole_with_one_line(
    demo_repository: Path, tmp_path: Path, victim: str, says: str
) -> None:
    """Exit code 1, one line that names the part, and no process is left."""
    with running_stack([DEMO], demo_repository, tmp_path) as stack:
        processes = stack.processes()
        found = [p for p in processes[1:] if p.name().startswith(victim)]
        # For the model, this kills the process of one instance.
        found[0].kill()

        assert stack.process.wait(STOP_TIMEOUT_S) == 1

        assert_nothing_left(stack, processes)
        errors = error_lines(stack.rest())
        assert len(errors) == 1
        assert says in errors[0]


def test_taken_port_is_one_line_before_any_work(demo_repository: Path, tmp_path: Path) -> None:
    """Nothing is started; the line names the port and the way out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, lines = output_of_failed_serve(
            [DEMO, "--repository", str(demo_repository), "--port", str(port)], tmp_path
        )

    assert code == 1
    assert len(lines) == 1
    assert f"port {port} on 127.0.0.1 cannot be opened" in lines[0]
    assert "--port" in lines[0]


def test_missing_wheel_is_one_line(tmp_path: Path) -> None:
    """The line says how to install the embedded Triton."""
    # The modules are imported before the path is emptied; only the search for the wheel fails.
    program = (
        "import sys; from deploy import cli; from deploy.local import serve\n"
        "sys.path[:] = []\n"
        "cli.main(['serve', '--port', '0'])"
    )

    done = run_python(["-c", program], ROOT)

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("vitriton: error: the embedded Triton is not installed")
    assert "make install" in done.stderr


@pytest.fixture
def broken_repository(demo_repository: Path, tmp_path: Path) -> Path:
    """The demo's entry with a damaged `model.pt`."""
    repository = tmp_path / "broken"
    entry = repository / "vitriton--vit-digits"
    shutil.copytree(demo_repository / "vitriton--vit-digits", entry)
    (entry / "1" / "model.pt").write_bytes(b"not TorchScript")
    return repository


def test_model_that_fails_to_load_is_one_line_with_the_reason(
    broken_repository: Path, tmp_path: Path
) -> None:
    """The line has Triton's reason, the model's name and the path of the log; exit code 1."""
    code, lines = output_of_failed_serve(
        [DEMO, "--repository", str(broken_repository), "--port", "0"], tmp_path
    )

    errors = error_lines(lines)
    assert code == 1
    assert len(errors) == 1
    assert f"could not load the model {DEMO}" in errors[0]
    assert "Traceback" not in "\n".join(lines)
    log = Path(errors[0].partition("Triton's log: ")[2].rstrip(")"))
    assert log.is_file()
    shutil.rmtree(log.parent)


@pytest.fixture
def vit_folder(checkpoints: dict[str, Path]) -> Path:
    """A checkpoint folder."""
    return checkpoints["test/vit"]


def test_old_version_stays_loadable(vit_folder: Path, tmp_path: Path) -> None:
    """After two exports Triton serves the newest; its version policy can choose the first."""
    repository = tmp_path / "models"
    for _ in range(2):
        export_model(
            ExportRequest(str(vit_folder), repository, "me/vit", options=ServingOptions(1))
        )
    pixels = tritonclient.grpc.InferInput("pixel_values", [1, 224, 224, 3], "UINT8")
    pixels.set_data_from_numpy(np.full((1, 224, 224, 3), 90, dtype=np.uint8))
    with running_stack(["me/vit"], repository, tmp_path) as stack:
        with tritonclient.grpc.InferenceServerClient(stack.triton_grpc_url) as triton:
            newest = triton.infer("me--vit", [pixels])
            config = triton.get_model_config("me--vit", as_json=True)["config"]
            config["version_policy"] = {"specific": {"versions": ["1"]}}
            triton.load_model("me--vit", config=json.dumps(config))
            first = triton.infer("me--vit", [pixels])
        answer = httpx.post(f"{stack.url}/models/me/vit", content=photo("china"), timeout=60)

    assert newest.get_response().model_version == "2"
    assert first.get_response().model_version == "1"
    assert np.array_equal(newest.as_numpy("logits"), first.as_numpy("logits"))
    assert answer.status_code == 200


def test_two_checkpoints_of_one_name_are_refused(vit_folder: Path, tmp_path: Path) -> None:
    """Both would have the same id; the line says how to give one another id."""
    one, two = (tmp_path / run / "best" for run in ("run1", "run2"))
    for folder in (one, two):
        shutil.copytree(vit_folder, folder)

    code, lines = output_of_failed_serve(
        [str(one), str(two), "--repository", str(tmp_path / "models"), "--port", "0"], tmp_path
    )

    assert code == 1
    assert "would both be served as best" in error_lines(lines)[0]


def test_changed_checkpoint_is_exported_again(vit_folder: Path, tmp_path: Path) -> None:
    """The content decides, not the date: other weights with an older date count."""
    repository = tmp_path / "models"
    shutil.copytree(vit_folder, tmp_path / "best")

    async def prepare() -> list[str]:
        return await prepare_models([str(tmp_path / "best")], repository, "auto")

    assert asyncio.run(prepare()) == ["best"]
    asyncio.run(prepare())
    assert versions_of(repository / "best") == [1]
    weights = tmp_path / "best" / "model.safetensors"
    tensors = load_file(weights)
    tensors["classifier.bias"] += 1
    save_file(tensors, weights, {"format": "pt"})
    os.utime(weights, (0, 0))
    asyncio.run(prepare())

    assert versions_of(repository / "best") == [1, 2]


def test_unknown_model_is_one_line(tmp_path: Path) -> None:
    """It is neither in the repository nor a folder, and the hub does not answer."""
    code, lines = output_of_failed_serve(
        ["nobody/nothing", "--repository", str(tmp_path / "models"), "--port", "0"],
        tmp_path,
        HF_HUB_OFFLINE="1",
        HF_HUB_CACHE=str(tmp_path / "cache"),
    )

    assert code == 1
    assert len(error_lines(lines)) == 1
    assert "nobody/nothing is not in the hub's cache" in error_lines(lines)[0]
    assert "Traceback" not in "\n".join(lines)


def test_without_models_the_hubs_vit_is_served_if_the_hub_answers(
    checkpoints: dict[str, Path], demo_repository: Path, tmp_path: Path
) -> None:
    """The demo is served too; later starts need no hub."""
    repository = Path(shutil.copytree(demo_repository, tmp_path / "models"))
    with hub(checkpoints["test/vit"], model_id=HUB_MODEL) as endpoint:
        environment = hub_environment(endpoint, tmp_path)
        with running_stack([], repository, tmp_path, **environment) as stack:
            served = httpx.get(f"{stack.url}/info").json()
    with running_stack([], repository, tmp_path, **environment) as stack:
        again = httpx.get(f"{stack.url}/info").json()

    assert served["default_model"] == again["default_model"] == HUB_MODEL
    for answer in (served, again):
        assert {model["model_id"] for model in answer["models"]} == {DEMO, HUB_MODEL}


def test_without_models_and_hub_the_demo_is_served(demo_repository: Path, tmp_path: Path) -> None:
    """The hub is asked once, and a line says that it does not answer."""
    environment = hub_environment("http://127.0.0.1:1", tmp_path)
    with running_stack([], demo_repository, tmp_path, **environment) as stack:
        served = httpx.get(f"{stack.url}/info").json()

    assert served["default_model"] == DEMO


def test_interrupt_while_starting_stops_everything(demo_repository: Path, tmp_path: Path) -> None:
    """Ctrl-C before the stack is ready leaves no process and no shared memory."""
    process, lines = start_serve(
        [DEMO, "--repository", str(demo_repository), "--port", "0"], tmp_path
    )
    while (line := lines.get(timeout=STOP_TIMEOUT_S)) != f"vitriton: loading {DEMO}":
        assert line is not None
    below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)

    assert process.wait(STOP_TIMEOUT_S) == 0
    assert all_lines(lines)[-1] == "vitriton: stopped"
    assert psutil.wait_procs(below, timeout=STOP_TIMEOUT_S)[1] == []
    assert list(SHM.glob(f"vitriton-{process.pid}-*")) == []


def test_signal_during_an_export_stops_the_export(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """SIGTERM to the runner alone also ends the process of the export."""
    process, lines = start_serve(
        [str(checkpoints["test/vit"]), "--repository", str(tmp_path / "models"), "--port", "0"],
        tmp_path,
    )
    while not (line := lines.get(timeout=STOP_TIMEOUT_S) or "").startswith("vitriton: loading"):
        assert "error" not in line
    below = psutil.Process(process.pid).children(recursive=True)
    assert below != []
    process.send_signal(signal.SIGTERM)

    assert process.wait(STOP_TIMEOUT_S) == 0
    assert psutil.wait_procs(below, timeout=STOP_TIMEOUT_S)[1] == []
    assert list((tmp_path / "models").glob("*")) == []


def test_proxy_of_the_environment_is_not_used(demo_repository: Path, tmp_path: Path) -> None:
    """The runner and the gateway connect to this machine without the proxy."""
    dead = "http://127.0.0.1:9"
    proxies = dict.fromkeys(["http_proxy", "https_proxy", "HTTP_PROXY", "grpc_proxy"], dead)
    with running_stack([DEMO], demo_repository, tmp_path, **proxies, no_proxy="") as stack:
        answer = httpx.post(
            f"{stack.url}/models/{DEMO}", content=photo("china"), timeout=60, trust_env=False
        )

        assert answer.status_code == 200


def test_entry_under_another_name_is_refused(demo_repository: Path, tmp_path: Path) -> None:
    """A copied folder would answer as another model; `/info` does not list it."""
    repository = tmp_path / "models"
    entry = repository / "me--copy"
    shutil.copytree(demo_repository / "vitriton--vit-digits", entry)
    for config in entry.rglob("*.pbtxt"):
        text = config.read_text()
        config.write_text(text.replace('name: "vitriton--vit-digits"', 'name: "me--copy"'))
    with running_stack(["me/copy"], repository, tmp_path) as stack:
        answer = httpx.post(f"{stack.url}/models/me/copy", content=photo("china"))
        info = httpx.get(f"{stack.url}/info")

    assert answer.status_code == 500
    assert "has the contract of vitriton/vit-digits" in answer.json()["error"]
    assert info.json()["models"] == []


def test_port_of_the_environment_is_used(demo_repository: Path, tmp_path: Path) -> None:
    """`GATEWAY_PORT` is the port if `--port` is not given."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, lines = output_of_failed_serve(
            [DEMO, "--repository", str(demo_repository)], tmp_path, GATEWAY_PORT=port
        )

    assert code == 1
    assert f"port {port} " in lines[0]


@pytest.mark.parametrize("command", [["gateway"], ["serve"]])
def test_wrong_setting_is_one_line_with_its_name(command: list[str], tmp_path: Path) -> None:
    """The setting is refused before anything starts; exit code 2."""
    done = run_vitriton(command, tmp_path, GATEWAY_MAX_BODY_BYTES="-1")

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "GATEWAY_MAX_BODY_BYTES='-1'" in done.stderr
