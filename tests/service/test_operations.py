"""Health, metrics, model facts and request ids of a running stack."""

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.pictures import PICTURES


def samples(client: httpx.Client) -> dict[str, float]:
    """Value of every series of the gateway, by name and labels."""
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    return {
        f"{s.name}{sorted(s.labels.items())}": s.value
        for family in text_string_to_metric_families(response.text)
        for s in family.samples
    }


def test_health_is_ok_when_the_default_model_is_loaded(client: httpx.Client) -> None:
    """`/health` is 200 with a JSON object when the default model is loaded."""
    response = client.get("/health")

    assert response.status_code == 200
    assert response.json() == {"status": "ok"}


def test_info_names_each_model_with_its_facts(client: httpx.Client) -> None:
    """`/info` has the facts that the exporter wrote into each model's `config.pbtxt`."""
    info = client.get("/info").json()

    assert info["default_model"] == "vitriton/vit-digits"
    facts = {model["model_id"]: model for model in info["models"]}
    assert facts.keys() >= {"vitriton/vit-digits", "test/vit", "test/deit-distilled"}
    assert facts["test/deit-distilled"]["model_type"] == "DeiTForImageClassificationWithTeacher"
    assert facts["test/vit"]["num_labels"] == 12
    assert facts["test/vit"]["weights"] == "checkpoint"
    assert facts["test/vit"]["model_dtype"] == "fp32"
    assert facts["test/vit"]["checkpoint_dtype"] == "fp32"


def test_metrics_count_requests_images_and_errors(client: httpx.Client) -> None:
    """Requests count by route and status, errors by type, and each image once per stage."""
    before = samples(client)
    client.post("/models/test/vit", content=PICTURES["bmp"], headers={"x-use-cache": "0"})
    client.post("/models/test/vit", content=b"no image")
    client.post("/models/test/nothing", content=PICTURES["bmp"])
    after = samples(client)

    route = "('route', '/models/{model_id}')"
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown[f"gateway_requests_total[('code', '200'), {route}]"] == 1
    assert grown[f"gateway_requests_total[('code', '400'), {route}]"] == 1
    assert grown[f"gateway_requests_total[('code', '404'), {route}]"] == 1
    assert grown["gateway_images_total[]"] == 1
    assert grown["gateway_errors_total[('error_type', 'invalid_image')]"] == 1
    assert grown["gateway_errors_total[('error_type', 'model_not_found')]"] == 1
    assert grown["gateway_stage_duration_seconds_count[('stage', 'infer')]"] == 1
    assert grown["gateway_stage_duration_seconds_count[('stage', 'decode')]"] == 2
    # The request for the metrics is in flight itself.
    assert after["gateway_inflight_requests[]"] == 1


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", "text/plain; version=0.0.4"),
        ("text/plain;version=one", "text/plain; version=0.0.4"),
        ("\xff\xfe", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text; version=1."),
        ("text/plain;q=1, application/openmetrics-text;q=0.1", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;q=0", "text/plain; version=0.0.4"),
        ("text/plain;q=0.1, application/openmetrics-text;q=0.9", "application/openmetrics-text"),
        # What Prometheus 3 sends.
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
            "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,*/*;q=0.1",
            "application/openmetrics-text; version=1.",
        ),
    ],
)
def test_metrics_come_in_the_format_that_is_asked_for(
    client: httpx.Client, accept: str | None, content_type: str
) -> None:
    """The format follows `Accept`, and is text 0.0.4 for everything unknown."""
    del client.headers["accept"]
    headers = [] if accept is None else [(b"accept", accept.encode("latin-1"))]
    answer = client.get("/metrics", headers=headers)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(content_type)
    assert answer.text.endswith("# EOF\n") == content_type.startswith("application/openmetrics")
    assert "gateway_inflight_requests 1.0" in answer.text


@pytest.mark.parametrize(
    ("asked", "encoding"),
    [("gzip", "gzip"), ("br;q=1, gzip;q=0.5", "gzip"), ("gzip;q=0", None), ("identity", None)],
)
def test_metrics_are_compressed_on_request(
    client: httpx.Client, asked: str, encoding: str | None
) -> None:
    """Metrics are compressed if `Accept-Encoding` admits gzip, as that of Prometheus does."""
    answer = client.get("/metrics", headers={"accept-encoding": asked})

    assert answer.headers.get("content-encoding") == encoding
    assert "gateway_inflight_requests 1.0" in answer.text


def test_request_id_is_the_callers_or_a_new_one(client: httpx.Client) -> None:
    """A short id without spaces comes back; any other is replaced by a new one."""
    given = client.get("/health", headers={"x-request-id": "abc-123"})
    traced = client.get("/health", headers={"x-amzn-trace-id": "Root=1-2;x"})
    hostile = client.get("/health", headers={"x-request-id": "a b" * 100})

    assert given.headers["x-request-id"] == "abc-123"
    assert traced.headers["x-request-id"] == "Root=1-2;x"
    assert len(hostile.headers["x-request-id"]) == 32
