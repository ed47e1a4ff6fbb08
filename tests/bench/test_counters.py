"""The counters of Triton and of the gateway are read from Prometheus' text."""

import pytest

from bench.counters import TritonCounters, parse_stages, parse_triton

# A model on a GPU has a series for each GPU, with the GPU's id before the other labels.
_TRITON = """# HELP nv_inference_count Number of inferences performed
# TYPE nv_inference_count counter
nv_inference_count{gpu_uuid="GPU-1",model="me--vit",version="1"} 30
nv_inference_count{gpu_uuid="GPU-2",model="me--vit",version="1"} 10
nv_inference_count{gpu_uuid="GPU-1",model="me--vit-2",version="1"} 7
# TYPE nv_inference_exec_count counter
nv_inference_exec_count{gpu_uuid="GPU-1",model="me--vit",version="1"} 5
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="me--vit",version="1"} 20
# TYPE nv_inference_queue_duration_us counter
nv_inference_queue_duration_us{model="me--vit",version="1"} 4000
# TYPE nv_inference_compute_infer_duration_us counter
nv_inference_compute_infer_duration_us{model="me--vit",version="1"} 60000
"""
_GATEWAY = """# TYPE gateway_stage_duration_seconds histogram
gateway_stage_duration_seconds_bucket{le="+Inf",stage="decode"} 4.0
gateway_stage_duration_seconds_count{stage="decode"} 4.0
gateway_stage_duration_seconds_sum{stage="decode"} 0.008
gateway_stage_duration_seconds_count{stage="infer"} 2.0
gateway_stage_duration_seconds_sum{stage="infer"} 0.01
"""


def test_counters_of_a_model_are_the_sum_over_its_gpus() -> None:
    found = parse_triton(_TRITON, "me/vit")

    assert (found.images, found.executions, found.calls) == (40, 5, 20)
    assert found.ms_per_call() == {
        "queue": pytest.approx(0.2),
        "compute_input": 0,
        "compute_infer": pytest.approx(3),
        "compute_output": 0,
    }


def test_counters_of_a_span_are_a_difference() -> None:
    found = parse_triton(_TRITON, "me/vit") - TritonCounters(10, 1, 10, 2000, 0, 20000, 0)
    assert (found.images, found.executions, found.calls) == (30, 4, 10)
    assert found.ms_per_call()["compute_infer"] == pytest.approx(4)


def test_model_without_calls_has_no_parts() -> None:
    assert parse_triton(_TRITON, "me/other") == TritonCounters()
    assert TritonCounters().ms_per_call() == {}


def test_stages_of_a_span_are_means_over_its_images() -> None:
    later = parse_stages(_GATEWAY.replace("0.008", "0.020").replace("4.0", "10.0"))
    assert parse_stages(_GATEWAY).ms_per_image() == {
        "decode": pytest.approx(2),
        "infer": pytest.approx(5),
    }
    assert (later - parse_stages(_GATEWAY)).ms_per_image() == {"decode": pytest.approx(2)}
