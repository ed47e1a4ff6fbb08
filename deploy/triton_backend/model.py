"""Triton's `pytorch` backend: serve a TorchScript `model.pt`, from pixels or from JPEGs.

A python-based backend: Triton starts one process for each model instance, and hands that process
the requests that its dynamic batcher has gathered. The backend reads the same `config.pbtxt` as
NVIDIA's `libtorch_pytorch.so`, which is not in the wheel, and `configs/gpu-jpeg.pbtxt`, which that
one cannot serve. Only the standard library, numpy, torch and nvImageCodec can be imported here.
Tensors cross the border by DLPack in both directions: without copies, and with any version of
numpy (`pb_utils.Tensor(name, ndarray)` gives empty tensors under numpy 2).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

# Triton's process provides this module; no package installs it.
import triton_python_backend_utils as pb_utils
from torch.utils.dlpack import from_dlpack, to_dlpack  # type: ignore[attr-defined]  # not in __all__

from .configuration import Configuration, read_configuration
from .decoding import JpegDecoder
from .events import Events
from .gathering import FileGathering, Gathering, PixelGathering
from .graphs import ServedGraph


class _Request(Protocol):
    """A request as Triton hands it to a backend; only `pb_utils` functions read it."""


class TritonPythonModel:
    """One instance of one model, on the device that Triton chose for it."""

    @torch.inference_mode()
    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph, find a decoder if the model takes files, and capture CUDA graphs.

        Args:
            args: Triton's description of the instance; `model_config` is JSON.

        Raises:
            Exception: Of any kind; Triton reports it as the reason why the model is not loaded.
        """
        self._config = config = read_configuration(json.loads(args["model_config"]))
        device = torch.device("cpu")
        if args["model_instance_kind"] == "GPU":
            device = torch.device("cuda", int(args["model_instance_device_id"]))
            torch.cuda.set_device(device)
        # Decoding has threads of its own, of which the instances get equal shares too.
        decoding_threads = max(1, torch.get_num_threads() // config.instances)
        _set_thread_counts(config, device)
        file = Path(args["model_repository"]) / args["model_version"] / config.model_file
        self._graph = ServedGraph(file, device, config.input_shape, config.most_images)
        self._gathering: Gathering = PixelGathering(self._graph, device)
        decoders: list[str] = []
        if config.takes_files:
            decoder = JpegDecoder(device, decoding_threads)
            decoders = decoder.names
            files = FileGathering(self._graph, decoder, config.resample)
            files.warm_up()
            self._gathering = files
        self._events = Events(args["model_name"], args["model_version"], pb_utils)
        if device.type == "cuda":
            self._events.captures_failed(self._graph.capture(config.cuda_graph_sizes))
        self._events.ready(str(device), decoders, self._graph.captured_sizes)

    @torch.inference_mode()
    def execute(self, requests: Sequence[_Request]) -> list[Any]:
        """Answer the requests with one forward pass over all of their images.

        The input of each request has the shape `(n, …)`, its output `(n, labels)` with the same
        `n`. The logits of a picture that cannot be decoded are NaN.

        Raises:
            RuntimeError: The model returned another number of results than it got images.
        """
        inputs = [self._input_of(request) for request in requests]
        batch = self._gathering.gather(inputs)
        logits = self._graph.logits(batch.images)
        if batch.rows is not None:
            logits = logits[batch.rows]
        if batch.undecodable:
            logits[batch.undecodable] = float("nan")
        if batch.bad_jpegs:
            self._events.undecodable(batch.bad_jpegs)
        return [self._response(part) for part in logits.split([len(each) for each in inputs])]

    def _input_of(self, request: _Request) -> torch.Tensor:
        tensor = pb_utils.get_input_tensor_by_name(request, self._config.input_name)
        return from_dlpack(tensor.to_dlpack())

    def _response(self, output: torch.Tensor) -> Any:
        tensor = pb_utils.Tensor.from_dlpack(self._config.output_name, to_dlpack(output))
        return pb_utils.InferenceResponse([tensor])


def _set_thread_counts(config: Configuration, device: torch.device) -> None:
    """Apply the configuration's thread counts, as NVIDIA's libtorch backend does.

    On a CPU each instance gets its share of the threads: instances that compute side by side with
    all threads each would wait for each other.
    """
    if device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // config.instances))
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.interop_threads is not None:
        torch.set_num_interop_threads(config.interop_threads)
