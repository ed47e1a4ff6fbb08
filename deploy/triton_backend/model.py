"""Triton's `pytorch` backend for the embedded server: serve a TorchScript `model.pt`.

A python-based backend: Triton runs one process of it for each model instance and hands it the
requests that its dynamic batcher gathered. It takes the same `config.pbtxt` as NVIDIA's
`libtriton_pytorch.so`, which is not in the wheel.
Tensors cross by DLPack both ways: without copies, and independent of the numpy version
(`pb_utils.Tensor(name, ndarray)` gives empty tensors under numpy 2).
"""

import ctypes
import fcntl
import json
import os
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
import triton_python_backend_utils as pb_utils
from torch.utils.dlpack import from_dlpack, to_dlpack

_DEFAULT_MODEL_FILE = "model.pt"
# The parameter of `config.pbtxt` in which `vitriton export` writes what it made.
_CONTRACT = "vitriton"
# Whose operators are fused: of these alone it is known that the fuser is safe with them. It writes
# beyond its memory where a residual is added to a linear layer of one row.
_FUSED_ARCHITECTURES = {"ViTForImageClassification", "DeiTForImageClassification"}
# Largest difference between a fused graph's logits and the graph's own, of the largest logit.
_TOLERANCES = {"fp32": 1e-4, "bf16": 0.05, "fp16": 0.01}
# Largest `model.pt` whose weights are worth holding once more for full batches.
_SMALL_BYTES = 100_000_000


class TritonPythonModel:
    """One instance of one model, on the device that Triton chose for it."""

    def initialize(self, args):
        """Load the graph; an exception here is the model's load error in Triton."""
        config = json.loads(args["model_config"])
        self._input_name = _only(config["input"], "input")
        self._output_name = _only(config["output"], "output")
        if args["model_instance_kind"] == "GPU":
            self._device = torch.device("cuda", int(args["model_instance_device_id"]))
        else:
            self._device = torch.device("cpu")
        _set_threads(config["parameters"])
        self._processors = _Processors()
        file = config.get("default_model_filename") or _DEFAULT_MODEL_FILE
        path = Path(args["model_repository"]) / args["model_version"] / file
        self._pinned = None
        self._graph = torch.jit.load(str(path), map_location=self._device).eval()
        self._fused = {}
        if self._device.type == "cpu":
            with path.open("rb") as file:
                # Instances take turns: side by side their threads would wait for each other.
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX)
                self._fuse(config, args["model_instance_name"], path.stat().st_size)

    @torch.inference_mode()
    def execute(self, requests):
        """Answer the requests with one forward pass over all of their images.

        Each input has shape `(n, …)`, each output `(n, …)` with the same `n`.
        """
        inputs = [
            from_dlpack(pb_utils.get_input_tensor_by_name(request, self._input_name).to_dlpack())
            for request in requests
        ]
        batch = self._gathered(inputs)
        with self._processors.taken() as threads:
            graph = self._fused.get((len(batch), threads), self._graph)
            # One transfer back for the whole batch; on the CPU there is nothing to copy.
            outputs = graph(batch).cpu()
        if outputs.shape[0] != batch.shape[0]:
            raise RuntimeError(
                f"the model returned {outputs.shape[0]} results for {batch.shape[0]} images"
            )
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor.from_dlpack(self._output_name, to_dlpack(part))]
            )
            for part in outputs.split([len(images) for images in inputs])
        ]

    def _fuse(self, config, instance_name, file_bytes):
        """Compile what comes most; docs/decisions/0011-fused-graphs.md has what it is worth."""
        (described,) = config["input"]
        dims = [int(edge) for edge in described["dims"]]
        contract = _contract(config)
        architecture = contract.get("architecture")
        if architecture not in _FUSED_ARCHITECTURES:
            known = ", ".join(sorted(_FUSED_ARCHITECTURES))
            pb_utils.Logger.log_info(f"not fused: {architecture} is none of {known}")
            return
        if config["max_batch_size"] == 0 or min(dims) < 1:
            return
        dtype = pb_utils.triton_string_to_numpy(described["data_type"])
        noise = np.random.default_rng(0).integers(0, 256, (1, *dims)).astype(dtype)
        batches = _worth_fusing(
            instance_name,
            sum(group["count"] for group in config["instance_group"]),
            config["max_batch_size"],
            file_bytes,
            torch.get_num_threads(),
        )
        # The strictest if the contract does not say in what the model computes.
        tolerance = _TOLERANCES.get(contract.get("dtype"), min(_TOLERANCES.values()))
        self._fused = _fused(self._graph, torch.from_numpy(noise), batches, tolerance)
        # To the kernel, what compiling has taken and malloc would keep: as much as the weights.
        ctypes.CDLL(None).malloc_trim(0)

    def _gathered(self, inputs):
        """One batch on the device; a lone request on the CPU is not copied, others are once."""
        if self._device.type == "cpu":
            if len(inputs) == 1:
                return inputs[0]
            # Not by torch.cat: it would wake the threads of the model for a small copy, and they
            # spin for a millisecond before they sleep again.
            return torch.from_numpy(np.concatenate([images.numpy() for images in inputs]))
        count = sum(len(images) for images in inputs)
        pinned = self._pinned_buffer(count, inputs[0])
        torch.cat(inputs, out=pinned)
        return pinned.to(self._device, non_blocking=True)

    def _pinned_buffer(self, count, like):
        """Page-locked memory for so many images, which the GPU reads by itself.

        It is used again: `.cpu()` at the end of a batch has waited for the transfer before the
        next batch writes here.
        """
        if self._pinned is None or len(self._pinned) < count:
            self._pinned = torch.empty((count, *like.shape[1:]), dtype=like.dtype, pin_memory=True)
        return self._pinned[:count]


class _Processors:
    """Threads for a batch: all when no other instance of any model computes, else half.

    Whoever computes holds a shared lock on this file, of which every Triton has a copy of its own;
    whoever gets it exclusively is alone. The kernel takes it back from an instance that dies.
    """

    def __init__(self):
        self._lock = os.open(__file__, os.O_RDONLY | os.O_CLOEXEC)
        self._all = torch.get_num_threads()

    @contextmanager
    def taken(self):
        """A block that computes, with so many threads."""
        threads = self._all if self._is_alone() else max(1, self._all // 2)
        torch.set_num_threads(threads)
        try:
            yield threads
        finally:
            with suppress(OSError):
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _is_alone(self):
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # A file system without locks ends here as well: half is never far wrong.
            is_alone = False
        else:
            is_alone = True
        with suppress(OSError):
            fcntl.flock(self._lock, fcntl.LOCK_SH)
        return is_alone


def _worth_fusing(instance_name, instances, max_batch_size, file_bytes, threads):
    """The batches, as images and threads, that it pays to have fused.

    Lone images, by the instance that `configs/cpu.pbtxt` prefers, the first of the first group;
    and full batches of small models, which all instances compute side by side.
    """
    batches = set()
    if instance_name.endswith("_0_0"):
        batches.add((1, threads))
    if file_bytes <= _SMALL_BYTES:
        batches.add((max_batch_size, threads if instances == 1 else max(1, threads // 2)))
    return batches


@torch.inference_mode()
def _fused(graph, image, batches, tolerance):
    """The graph with its operators fused by oneDNN, by images and threads, as far as it can be.

    Each is compiled for so many images and threads, and holds the weights once more.
    """
    found = {}
    try:
        # Before fusing is on: what settles then is fused, and this one is for all other batches.
        plain = _settled(graph, image)
        torch.jit.enable_onednn_fusion(True)
        for images, threads in sorted(batches):
            torch.set_num_threads(threads)
            # A copy of the graph which shares its weights.
            fused = torch.jit.freeze(graph)
            logits = _settled(fused, image.expand(images, *image.shape[1:]).contiguous())
            difference = ((logits - plain).abs().max() / plain.abs().max()).item()
            # NaN is no match.
            if not difference <= tolerance:
                pb_utils.Logger.log_warn(
                    f"not fused for a batch of {images}: the logits would differ by"
                    f" {difference:.1e} of the largest, more than {tolerance:g}"
                )
                continue
            pb_utils.Logger.log_info(f"fused for a batch of {images}, threads: {threads}")
            found[images, threads] = fused
    # The fuser's, which does not know every operator, or the model's about noise.
    except (RuntimeError, torch.jit.Error) as exc:
        pb_utils.Logger.log_info(f"not fused: {exc}")
    finally:
        torch.jit.enable_onednn_fusion(False)
    return found


def _settled(graph, batch):
    """What the graph gives once it is settled how it is computed: in the second call."""
    graph(batch)
    return graph(batch)


def _contract(config):
    """What `vitriton export` says of the model; nothing of one that it has not made."""
    parameter = config["parameters"].get(_CONTRACT, {"string_value": "{}"})
    return json.loads(parameter["string_value"])


def _set_threads(parameters):
    """Take the thread counts of the configuration, as the libtorch backend does."""
    for name, set_count in (
        ("INTRA_OP_THREAD_COUNT", torch.set_num_threads),
        ("INTER_OP_THREAD_COUNT", torch.set_num_interop_threads),
    ):
        if name in parameters:
            set_count(int(parameters[name]["string_value"]))


def _only(tensors, what):
    if len(tensors) != 1:
        raise ValueError(f"a model must have one {what}, this one has {len(tensors)}")
    return tensors[0]["name"]
