"""Triton's `pytorch` backend for the embedded server: serve a TorchScript `model.pt`.

A python-based backend: Triton copies this one file, starts one process of it for each model
instance, and hands that process the requests that its dynamic batcher has gathered. The backend
reads the same `config.pbtxt` as NVIDIA's `libtriton_pytorch.so`, which is not in the wheel.
Only the standard library, numpy and torch can be imported here.
Tensors cross the border by DLPack in both directions: without copies, and with any version of
numpy (`pb_utils.Tensor(name, ndarray)` gives empty tensors under numpy 2).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch

# Triton's process provides this module; no package installs it.
import triton_python_backend_utils as pb_utils
from torch.utils.dlpack import from_dlpack, to_dlpack  # type: ignore[attr-defined]  # not in __all__

_DEFAULT_MODEL_FILE: Final = "model.pt"


class _Request(Protocol):
    """A request as Triton hands it to a backend; only `pb_utils` functions read it."""


class TritonPythonModel:
    """One instance of one model, on the device that Triton chose for it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph.

        Args:
            args: Triton's description of the instance; `model_config` is JSON.

        Raises:
            Exception: Of any kind; Triton reports it as the reason why the model is not loaded.
        """
        config = json.loads(args["model_config"])
        self._input_name = _only_name(config["input"], "input")
        self._output_name = _only_name(config["output"], "output")
        if args["model_instance_kind"] == "GPU":
            self._device = torch.device("cuda", int(args["model_instance_device_id"]))
        else:
            self._device = torch.device("cpu")
        if self._device.type == "cpu":
            _share_threads(config["instance_group"])
        _set_thread_counts(config["parameters"])
        file = config.get("default_model_filename") or _DEFAULT_MODEL_FILE
        path = Path(args["model_repository"]) / args["model_version"] / file
        self._graph = torch.jit.load(str(path), map_location=self._device).eval()
        self._pinned: torch.Tensor | None = None

    @torch.inference_mode()
    def execute(self, requests: Sequence[_Request]) -> list[Any]:
        """Answer the requests with one forward pass over all of their images.

        The input of each request has the shape `(n, …)`, its output `(n, …)` with the same `n`.

        Raises:
            RuntimeError: The model returned another number of results than it got images.
        """
        inputs = [self._input_of(request) for request in requests]
        batch = self._gather(inputs)
        # One transfer back for the whole batch; on the CPU there is nothing to copy.
        outputs: torch.Tensor = self._graph(batch).cpu()
        if outputs.shape[0] != batch.shape[0]:
            raise RuntimeError(
                f"the model returned {outputs.shape[0]} results for {batch.shape[0]} images"
            )
        return [self._response(part) for part in outputs.split([len(images) for images in inputs])]

    def _input_of(self, request: _Request) -> torch.Tensor:
        tensor = pb_utils.get_input_tensor_by_name(request, self._input_name)
        return from_dlpack(tensor.to_dlpack())

    def _response(self, output: torch.Tensor) -> Any:
        tensor = pb_utils.Tensor.from_dlpack(self._output_name, to_dlpack(output))
        return pb_utils.InferenceResponse([tensor])

    def _gather(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Put the images of all requests into one batch on the device.

        On the CPU the images of a single request are not copied, those of several once.
        """
        if self._device.type == "cpu":
            if len(inputs) == 1:
                return inputs[0]
            # torch.cat would wake the model's threads for a small copy, and they spin for a
            # millisecond before they sleep again.
            return torch.from_numpy(np.concatenate([images.numpy() for images in inputs]))
        count = sum(len(images) for images in inputs)
        pinned = self._pinned_buffer(count, inputs[0])
        torch.cat(list(inputs), out=pinned)
        return pinned.to(self._device, non_blocking=True)

    def _pinned_buffer(self, count: int, like: torch.Tensor) -> torch.Tensor:
        """Page-locked memory for `count` images, which the GPU reads by itself.

        Every batch uses the same memory: the `.cpu()` at the end of a batch waits for the
        transfer, so the next batch cannot overwrite images that are still being read.
        """
        if self._pinned is None or len(self._pinned) < count:
            self._pinned = torch.empty((count, *like.shape[1:]), dtype=like.dtype, pin_memory=True)
        return self._pinned[:count]


def _share_threads(groups: Sequence[dict[str, Any]]) -> None:
    """Give each instance of the model its share of the threads.

    Instances that compute side by side with all threads each would wait for each other.
    """
    instances = sum(group["count"] for group in groups)
    torch.set_num_threads(max(1, torch.get_num_threads() // instances))


def _set_thread_counts(parameters: dict[str, dict[str, str]]) -> None:
    """Apply the thread counts of the configuration, as NVIDIA's libtorch backend does."""
    for name, set_count in (
        ("INTRA_OP_THREAD_COUNT", torch.set_num_threads),
        ("INTER_OP_THREAD_COUNT", torch.set_num_interop_threads),
    ):
        if name in parameters:
            set_count(int(parameters[name]["string_value"]))


def _only_name(tensors: Sequence[dict[str, Any]], what: str) -> str:
    """Name of the only input or output in the configuration.

    Raises:
        ValueError: There is none, or more than one.
    """
    if len(tensors) != 1:
        raise ValueError(f"a model must have one {what}, this one has {len(tensors)}")
    name: str = tensors[0]["name"]
    return name
