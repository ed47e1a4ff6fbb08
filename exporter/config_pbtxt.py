"""Write `config.pbtxt` with Triton's own protobuf messages, which refuse unknown fields.

The text is the same for NVIDIA's image and for the embedded Triton.
"""

from dataclasses import dataclass
from typing import Final, Literal

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from exporter.errors import ExportError, reason_of
from gateway.modelspec import (
    CONTRACT_PARAMETER,
    FILES_INPUT_NAME,
    INPUT_NAME,
    OUTPUT_NAME,
    ModelSpec,
    input_dims,
    triton_model_name,
)

Profile = Literal["auto", "cpu", "gpu", "gpu-jpeg"]

DEFAULT_MAX_BATCH_SIZE: Final = 32
# A CPU computes as many images a second in small batches, and each image waits for fewer others.
DEFAULT_CPU_MAX_BATCH_SIZE: Final = 8

# TorchScript specialises the graph during the first calls of each shape.
_WARMUP_CALLS: Final = 3
# Two on a GPU: one computes while the other copies; more rarely help. One on a CPU, with all
# threads: several instances would compute at the same time and wait for each other's threads.
_INSTANCES: Final[dict[Profile, int]] = {"auto": 1, "cpu": 1, "gpu": 2, "gpu-jpeg": 2}
_KINDS: Final[dict[Profile, int]] = {
    # Triton chooses a GPU if there is one, else the CPU.
    "auto": pb.ModelInstanceGroup.KIND_AUTO,
    "cpu": pb.ModelInstanceGroup.KIND_CPU,
    # Without a GPU Triton then refuses to load the model, instead of serving it slowly.
    "gpu": pb.ModelInstanceGroup.KIND_GPU,
    "gpu-jpeg": pb.ModelInstanceGroup.KIND_GPU,
}
_ON_GPU: Final = frozenset[Profile]({"gpu", "gpu-jpeg"})
# Batch sizes that our backend captures as CUDA graphs; it pads a batch to the next of them. On an
# H200 a ViT-base gains most below 32 images: bench/notes/gpu.md.
_CUDA_GRAPH_SIZES: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
# The backend's name for those sizes. NVIDIA's libtorch backend ignores it.
_CUDA_GRAPHS_PARAMETER: Final = "CUDA_GRAPH_BATCH_SIZES"
# Zeros of the length of one head of `docs/gpu.md`: a picture that cannot be decoded. The backend
# computes its batch like any other.
_EMPTY_PICTURE_BYTES: Final = 32
# On a CPU the thread count is the machine's, not the model's: OMP_NUM_THREADS.
_GPU_PARAMETERS: Final = {
    "ENABLE_WEIGHT_SHARING": "true",
    "INTRA_OP_THREAD_COUNT": "1",
    "INTER_OP_THREAD_COUNT": "1",
}


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """What the user may choose about how Triton serves a model."""

    max_batch_size: int | None = None
    """Most images in one batch; if none, the profile's default."""
    instances: int | None = None
    """Instances on each device; if none, the profile's default."""
    batch_delay_us: int = 0
    """Microseconds that a batch which is not full waits for further images."""

    @property
    def largest_batch_size(self) -> int:
        """The largest batch size of all profiles."""
        return self.max_batch_size or DEFAULT_MAX_BATCH_SIZE

    def batch_size_of(self, profile: Profile) -> int:
        """The largest batch size of this profile."""
        if self.max_batch_size is None and profile == "cpu":
            return DEFAULT_CPU_MAX_BATCH_SIZE
        return self.largest_batch_size


def build_model_config(
    spec: ModelSpec, options: ServingOptions, profile: Profile
) -> pb.ModelConfig:
    """Triton's configuration of one exported model."""
    max_batch_size = options.batch_size_of(profile)
    parameters = {CONTRACT_PARAMETER: spec.model_dump_json()}
    if profile in _ON_GPU:
        sizes = ",".join(map(str, cuda_graph_sizes(max_batch_size)))
        parameters |= _GPU_PARAMETERS | {_CUDA_GRAPHS_PARAMETER: sizes}
    takes = model_input(spec, profile)
    return pb.ModelConfig(
        name=triton_model_name(spec.model_id),
        backend="pytorch",
        platform="pytorch_libtorch",
        max_batch_size=max_batch_size,
        input=[takes],
        output=[
            pb.ModelOutput(name=OUTPUT_NAME, data_type=pb.TYPE_FP32, dims=[len(spec.id2label)])
        ],
        instance_group=[
            pb.ModelInstanceGroup(
                kind=_KINDS[profile], count=options.instances or _INSTANCES[profile]
            )
        ],
        # No preferred sizes and no queue policy: the next batch grows while one is computed, and
        # any queue policy turns off Triton's payload prefetching
        # (https://github.com/triton-inference-server/server/issues/8870).
        dynamic_batching=pb.ModelDynamicBatching(
            max_queue_delay_microseconds=options.batch_delay_us
        ),
        version_policy=pb.ModelVersionPolicy(latest=pb.ModelVersionPolicy.Latest(num_versions=1)),
        model_warmup=[_warmup(n, takes) for n in _warmup_sizes(profile, max_batch_size)],
        parameters={
            name: pb.ModelParameter(string_value=value) for name, value in parameters.items()
        },
    )


def check_options(options: ServingOptions) -> None:
    """Refuse numbers below the smallest that make sense.

    Raises:
        ExportError: Names the option and its value.
    """
    if options.max_batch_size is not None and options.max_batch_size < 1:
        raise ExportError(f"max batch size {options.max_batch_size} is less than 1")
    if options.instances is not None and options.instances < 1:
        raise ExportError(f"{options.instances} instances are less than 1")
    if options.batch_delay_us < 0:
        raise ExportError(f"a batch delay of {options.batch_delay_us} µs is less than 0")


def cuda_graph_sizes(max_batch_size: int) -> list[int]:
    """Batch sizes to capture as CUDA graphs, ascending; the last is `max_batch_size`."""
    return [*(n for n in _CUDA_GRAPH_SIZES if n < max_batch_size), max_batch_size]


def model_input(spec: ModelSpec, profile: Profile) -> pb.ModelInput:
    """The input of a model: pixels, or files if they are decoded on the GPU."""
    if profile == "gpu-jpeg":
        # Not strings: they end the process of a python-based backend under numpy 2.
        return pb.ModelInput(
            name=FILES_INPUT_NAME, data_type=pb.TYPE_UINT8, dims=[-1], allow_ragged_batch=True
        )
    return pb.ModelInput(name=INPUT_NAME, data_type=pb.TYPE_UINT8, dims=input_dims(spec))


def _warmup_sizes(profile: Profile, max_batch_size: int) -> list[int]:
    """Batch sizes to warm up: on a GPU those that our backend computes, otherwise only 1.

    On a CPU, larger sizes would make start-up last minutes.
    """
    return cuda_graph_sizes(max_batch_size) if profile in _ON_GPU else [1]


def _warmup(batch_size: int, takes: pb.ModelInput) -> pb.ModelWarmup:
    if takes.name == FILES_INPUT_NAME:
        data = pb.ModelWarmup.Input(
            data_type=pb.TYPE_UINT8, dims=[_EMPTY_PICTURE_BYTES], zero_data=True
        )
    else:
        # Triton sends random bytes, which are valid uint8 pixels; as floats they could be NaN.
        data = pb.ModelWarmup.Input(data_type=pb.TYPE_UINT8, dims=takes.dims, random_data=True)
    return pb.ModelWarmup(
        name=f"batch_{batch_size}",
        batch_size=batch_size,
        count=_WARMUP_CALLS,
        inputs={takes.name: data},
    )


def to_pbtxt(config: pb.ModelConfig) -> str:
    """The text of `config.pbtxt`."""
    return str(text_format.MessageToString(config, as_utf8=True))


def parse_pbtxt(text: str) -> pb.ModelConfig:
    """Parse the text of a `config.pbtxt`.

    Raises:
        ExportError: The text is no model configuration.
    """
    try:
        return text_format.Parse(text, pb.ModelConfig())
    except text_format.ParseError as exc:
        raise ExportError(f"config.pbtxt cannot be read: {reason_of(exc)}") from exc
