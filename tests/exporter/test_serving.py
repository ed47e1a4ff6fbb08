"""Precision, and the configurations for a CPU and a GPU."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tritonclient.grpc import model_config_pb2

from exporter.config_pbtxt import ServingOptions, cuda_graph_sizes, parse_pbtxt, to_pbtxt
from exporter.errors import ExportError
from exporter.precision import choose_dtype, cpu_has_bf16
from gateway.modelspec import Device, Dtype
from tests.exporter.entries import config_of, export

VARIANTS = (
    "config.pbtxt",
    "configs/cpu.pbtxt",
    "configs/gpu.pbtxt",
    "configs/gpu-jpeg.pbtxt",
)


def test_low_precision_figures_are_in_the_contract(vit: Path, tmp_path: Path) -> None:
    """Half precision is measured against float32; the graph still gives float32 logits."""
    spec = export(vit, tmp_path / "models", precision="fp16")

    graph = torch.jit.load(str(tmp_path / "models" / "small-vit" / "1" / "model.pt"))
    assert graph(torch.zeros((1, 224, 224, 3), dtype=torch.uint8)).dtype == torch.float32
    assert spec.dtype == "fp16"
    assert spec.low_precision is not None
    assert spec.low_precision.mean_abs_logit_difference > 0
    assert (
        spec.low_precision.mean_abs_logit_difference <= spec.low_precision.max_abs_logit_difference
    )
    assert spec.low_precision.top1_agreement > 0.9
    smaller = (tmp_path / "models" / "small-vit" / "1" / "model.pt").stat().st_size
    export(vit, tmp_path / "full")
    assert smaller < 0.7 * (tmp_path / "full" / "small-vit" / "1" / "model.pt").stat().st_size


@pytest.mark.parametrize(("device", "dtype"), [("cpu", "fp32"), ("gpu", "fp16")])
def test_automatic_precision_follows_the_device(device: Device, dtype: Dtype) -> None:
    """Processors without fp16 arithmetic would be slow in fp16."""
    assert choose_dtype("auto", device) == dtype


def test_bf16_needs_a_processor_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flags of the processor tell, on x86 and on Arm."""
    cpu_info = tmp_path / "cpuinfo"
    for text, has in [
        ("flags\t\t: fpu avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16\n", True),
        ("Features\t: fp asimd bf16\n", True),
        ("flags\t\t: fpu avx512f\nmodel name: avx512_bf16\n", False),
        ("", False),
    ]:
        cpu_info.write_text(text)
        assert cpu_has_bf16(cpu_info) == has
    monkeypatch.setattr("exporter.precision.cpu_has_bf16", lambda: False)

    assert choose_dtype("bf16", "gpu") == "bf16"
    with pytest.raises(ExportError, match="no bfloat16"):
        choose_dtype("bf16", "cpu")


def test_configurations_differ_where_the_devices_do(vit: Path, tmp_path: Path) -> None:
    """They differ in kind, instances, warm-up, input and what a GPU needs, in nothing else."""
    repository = tmp_path / "models"
    export(vit, repository, options=ServingOptions(max_batch_size=5))

    base, cpu, gpu, jpeg = (config_of(repository, "small-vit", variant) for variant in VARIANTS)
    kinds = model_config_pb2.ModelInstanceGroup
    assert [c.instance_group[0].kind for c in (base, cpu, gpu, jpeg)] == [
        kinds.KIND_AUTO,
        kinds.KIND_CPU,
        kinds.KIND_GPU,
        kinds.KIND_GPU,
    ]
    assert [c.instance_group[0].count for c in (base, cpu, gpu, jpeg)] == [1, 1, 2, 2]
    assert [w.batch_size for w in cpu.model_warmup] == [1]
    for on_gpu in (gpu, jpeg):
        assert [w.batch_size for w in on_gpu.model_warmup] == [1, 2, 3, 4, 5]
        assert all(w.count >= 3 for w in on_gpu.model_warmup)
        assert on_gpu.parameters["CUDA_GRAPH_BATCH_SIZES"].string_value == "1,2,3,4,5"
        assert on_gpu.parameters["ENABLE_WEIGHT_SHARING"].string_value == "true"
        assert on_gpu.parameters["INTRA_OP_THREAD_COUNT"].string_value == "1"
    assert list(cpu.parameters) == ["vitriton"]
    (files,) = jpeg.input
    assert (files.name, list(files.dims), files.allow_ragged_batch) == ("image", [-1], True)
    jpeg.input[0].CopyFrom(base.input[0])
    for config in (base, cpu, gpu, jpeg):
        assert parse_pbtxt(to_pbtxt(config)) == config
        for field in ("instance_group", "model_warmup", "parameters"):
            config.ClearField(field)
    assert base == cpu == gpu == jpeg


@pytest.mark.parametrize(
    ("most", "sizes"),
    [
        (1, [1]),
        (7, [1, 2, 3, 4, 6, 7]),
        (64, [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]),
        (1000, [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 1000]),
    ],
)
def test_sizes_of_cuda_graphs_end_with_the_largest_batch(most: int, sizes: list[int]) -> None:
    """So every batch that Triton makes can be padded to one of them."""
    assert cuda_graph_sizes(most) == sizes


def test_serving_options_reach_every_configuration(vit: Path, tmp_path: Path) -> None:
    """`--max-batch-size`, `--instances`, `--batch-delay-us`; values below the least are refused."""
    repository = tmp_path / "models"
    export(vit, repository, options=ServingOptions(2, 3, 500))

    for variant in VARIANTS:
        config = config_of(repository, "small-vit", variant)
        assert config.max_batch_size == 2
        assert [group.count for group in config.instance_group] == [3]
        assert config.dynamic_batching.max_queue_delay_microseconds == 500
    export(vit, repository, options=ServingOptions())
    sizes = [config_of(repository, "small-vit", variant).max_batch_size for variant in VARIANTS]
    assert sizes == [32, 8, 32, 32]
    for wrong in (ServingOptions(0), ServingOptions(1, 0), ServingOptions(1, 1, -1)):
        with pytest.raises(ExportError, match="less than"):
            export(vit, tmp_path / "none", options=wrong)
    assert not (tmp_path / "none").exists()


def test_checkpoint_in_half_precision_is_said_to_be_computed_otherwise(
    tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so, unless the graph computes in the stored precision."""
    caplog.set_level("INFO", logger="exporter")
    weights = load_file(tiny / "model.safetensors")
    stored = {name: tensor.to(torch.float16) for name, tensor in weights.items()}
    save_file(stored, tiny / "model.safetensors", {"format": "pt"})

    same = export(tiny, tmp_path / "models", precision="fp16", max_batch_size=1)
    assert "the checkpoint is stored in" not in caplog.text
    other = export(tiny, tmp_path / "models", precision="fp32", max_batch_size=1)

    assert same.checkpoint_dtype == other.checkpoint_dtype == "fp16"
    assert "the checkpoint is stored in fp16" in caplog.text
