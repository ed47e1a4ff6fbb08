"""Read the counters that Triton and the gateway keep, in Prometheus' text."""

from collections.abc import Iterator
from typing import Final, NamedTuple, Self
from urllib.request import ProxyHandler, build_opener

from prometheus_client.parser import text_string_to_metric_families

from gateway.modelspec import triton_model_name

_TIMEOUT_S: Final = 10.0
_STAGES: Final = "gateway_stage_duration_seconds"


class TritonCounters(NamedTuple):
    """What Triton has counted for one model since it started; microseconds over all calls."""

    images: float = 0
    executions: float = 0
    calls: float = 0
    queue_us: float = 0
    input_us: float = 0
    infer_us: float = 0
    output_us: float = 0

    def __sub__(self, earlier: Self) -> "TritonCounters":
        return TritonCounters(*(now - then for now, then in zip(self, earlier, strict=True)))

    def ms_per_call(self) -> dict[str, float]:
        """Milliseconds of a call in the queue, and in its computation's input, graph and output."""
        parts = {"queue": self.queue_us, "compute_input": self.input_us}
        parts |= {"compute_infer": self.infer_us, "compute_output": self.output_us}
        return {part: us / 1000 / self.calls for part, us in parts.items()} if self.calls else {}


_METRICS: Final = {
    "nv_inference_count": "images",
    "nv_inference_exec_count": "executions",
    "nv_inference_request_success": "calls",
    "nv_inference_queue_duration_us": "queue_us",
    "nv_inference_compute_input_duration_us": "input_us",
    "nv_inference_compute_infer_duration_us": "infer_us",
    "nv_inference_compute_output_duration_us": "output_us",
}


def triton_counters(url: str | None, model_id: str) -> TritonCounters:
    """The counters at Triton's `/metrics`; zeros without Triton."""
    return TritonCounters() if url is None else parse_triton(_fetch(url), model_id)


def parse_triton(text: str, model_id: str) -> TritonCounters:
    """The counters of a model: the sum over its GPUs, of which each has a series."""
    found: dict[str, float] = dict.fromkeys(_METRICS.values(), 0.0)
    for name, labels, value in _samples(text):
        # The parser gives a counter OpenMetrics' name.
        part = _METRICS.get(name.removesuffix("_total"))
        if part is not None and labels.get("model") == triton_model_name(model_id):
            found[part] += value
    return TritonCounters(**found)


class Stages(NamedTuple):
    """What the gateway has counted of its stages since it started."""

    seconds: dict[str, float]
    images: dict[str, float]

    def __sub__(self, earlier: Self) -> "Stages":
        seconds, images = (
            {stage: now - then.get(stage, 0.0) for stage, now in later.items()}
            for later, then in zip(self, earlier, strict=True)
        )
        return Stages(seconds, images)

    def ms_per_image(self) -> dict[str, float]:
        """Milliseconds of an image in each stage."""
        return {
            stage: seconds * 1000 / self.images[stage]
            for stage, seconds in self.seconds.items()
            if self.images.get(stage)
        }


def gateway_stages(url: str) -> Stages:
    """The counters of the gateway at its `/metrics`."""
    return parse_stages(_fetch(url))


def parse_stages(text: str) -> Stages:
    """The counters of the gateway's stages."""
    stages = Stages({}, {})
    for name, labels, value in _samples(text):
        if name == f"{_STAGES}_sum":
            stages.seconds[labels["stage"]] = value
        elif name == f"{_STAGES}_count":
            stages.images[labels["stage"]] = value
    return stages


def _fetch(url: str) -> str:
    with build_opener(ProxyHandler({})).open(url, timeout=_TIMEOUT_S) as answer:
        text: str = answer.read().decode()
    return text


def _samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value
