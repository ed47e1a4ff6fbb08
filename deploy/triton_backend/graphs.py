"""The model's graph on its device, with CUDA graphs for some batch sizes.

A CUDA graph starts all kernels of a batch at once: up to about 24 images a GPU would otherwise wait
for Python. It belongs to one batch size and one place in memory, so a batch is copied there and
padded to the next size that was captured. The method is that of
https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs/.
"""

import warnings
from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

# TorchScript specialises the graph in its first calls of each shape.
_SETTLING_CALLS: Final = 3
# Largest difference of a captured graph's logits from those of the same kernels called one by one,
# as a share of the largest logit. A wrong capture is far above, rounding in fp16 far below.
_TOLERANCE: Final = 0.02

Call = Callable[[torch.Tensor], torch.Tensor]


class _Captured(NamedTuple):
    replay: Callable[[], object]
    outputs: torch.Tensor


class ServedGraph:
    """Computes batches. All CUDA graphs share the weights and one memory pool."""

    def __init__(
        self,
        file: Path,
        device: torch.device,
        input_shape: tuple[int, ...],
        most_images: int,
    ) -> None:
        """Load a TorchScript file; nothing is captured yet.

        Args:
            file: `model.pt`.
            device: Where it computes.
            input_shape: Of one image: height, width, channels.
            most_images: Most images in a batch.
        """
        with warnings.catch_warnings():
            # torch deprecates TorchScript, which is the format of the model repository.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._call: Call = torch.jit.load(str(file), map_location=device).eval()
        self._device = device
        self._inputs = torch.zeros(
            (most_images, *input_shape),
            dtype=torch.uint8,
            device=device,
        )
        self._captured: dict[int, _Captured] = {}

    def inputs(self, images: int) -> torch.Tensor:
        """Memory on the device for the images of the next batch, `(images, *input_shape)`.

        Every batch uses the same memory: fill it only after `logits` of the batch before.
        """
        return self._inputs[:images]

    def capture(self, sizes: Sequence[int]) -> dict[int, str]:
        """Capture CUDA graphs for these batch sizes.

        Returns:
            The sizes that could not be captured, each with the reason.
        """
        self._inputs.random_(0, 256)
        stream, pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
        failures: dict[int, str] = {}
        # The largest first, so that the others find their memory in the pool.
        for size in sorted(set(sizes), reverse=True):
            try:
                # A capture that fails leaves its own stream as the current one.
                with torch.cuda.stream(torch.cuda.current_stream()):
                    self._captured[size] = _capture(self._call, self.inputs(size), stream, pool)
            # torch's errors of CUDA are RuntimeErrors, and a model may raise others when captured.
            except Exception as exc:
                # The end of a capture fails too, and hides the first error.
                failures[size] = _first_line(exc.__context__ or exc)
                # It also leaves the pool in use.
                pool = torch.cuda.graph_pool_handle()
        return failures

    @property
    def captured_sizes(self) -> list[int]:
        """Batch sizes that have a CUDA graph, ascending."""
        return sorted(self._captured)

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        """Logits on the CPU, `(images, labels)`, float32; waits for the GPU.

        Args:
            batch: What `inputs` returned, or on a CPU any memory.

        Raises:
            RuntimeError: The model returned another number of results than it got images.
        """
        return self.outputs(batch).cpu()

    def outputs(self, batch: torch.Tensor) -> torch.Tensor:
        """The logits on the device, which the next batch may overwrite; see `logits`."""
        size = padded_size(self.captured_sizes, len(batch))
        if size is not None:
            captured = self._captured[size]
            captured.replay()
            return captured.outputs[: len(batch)]
        outputs = self._call(batch)
        if len(outputs) != len(batch):
            raise RuntimeError(f"the model returned {len(outputs)} results for {len(batch)} images")
        return outputs


def padded_size(sizes: Sequence[int], images: int) -> int | None:
    """The smallest of some batch sizes, ascending, that holds so many images; none if none does."""
    at = bisect_left(sizes, images)
    return sizes[at] if at < len(sizes) else None


def _first_line(exc: BaseException) -> str:
    return str(exc).strip().partition("\n")[0] or type(exc).__name__


def _capture(call: Call, example: torch.Tensor, stream: Any, pool: Any) -> _Captured:
    """Capture one batch size, and compare a replay with an ordinary call.

    Args:
        call: The model.
        example: The memory that a replay will read.
        stream: Where to capture. Libraries keep a workspace for each stream, so all sizes use one.
        pool: Memory for what is captured.

    Raises:
        RuntimeError: The model cannot be captured, or a replay gives other logits.
    """
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_SETTLING_CALLS):
            expected = call(example)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=stream):
        outputs = call(example)
    graph.replay()
    refuse_other_logits(outputs, expected)
    return _Captured(graph.replay, outputs)


def refuse_other_logits(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Refuse a captured graph that gives other logits than the calls that it captured.

    Raises:
        RuntimeError: They differ by more than rounding, or in shape.
    """
    if actual.shape != expected.shape:
        raise RuntimeError(f"a replay returns {tuple(actual.shape)}, not {tuple(expected.shape)}")
    difference = (actual - expected).abs().max().item()
    if not difference <= _TOLERANCE * max(1.0, expected.abs().max().item()):
        raise RuntimeError(f"a replay differs by {difference:.2e} from an ordinary call")
