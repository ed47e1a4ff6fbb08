"""The gateway's settings: the only reader of `GATEWAY_*` variables.

Each field is the variable `GATEWAY_<FIELD>`; its docstring is the row in `docs/configuration.md`.
A bad value ends the process before the port opens.
"""

import math
import os
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.runtime.processors import available_cpus

# Decoding releases the GIL, and the rest of a request takes a third of its time. So one process
# keeps about four processors busy.
_CPUS_PER_WORKER: Final = 4

DecodeMode = Literal["reference", "fast", "scaled"]

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class InvalidSettings(ValueError):
    """A setting cannot be used; the message is one line with its variable, value and reason."""


class Settings(BaseSettings):
    """Everything that can be set from outside. Units are in the names."""

    model_config = SettingsConfigDict(
        env_prefix="GATEWAY_", frozen=True, use_attribute_docstrings=True
    )

    host: str = "127.0.0.1"
    """Address the HTTP port is opened on; `0.0.0.0` for every interface."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """HTTP port; `0` takes a free one."""
    workers: PositiveInt | None = None
    """Processes that share the port. Each has its own cache, decoding threads and limits of
    requests and calls. Unset, one process for every four processors of the quota."""
    triton_url: str = "127.0.0.1:8001"
    """Triton's gRPC endpoint, `host:port`, without a scheme."""
    shared_memory_bytes: Annotated[int, Field(ge=0)] = 0
    """Memory in `/dev/shm` through which each process hands pixels to a Triton on the same host.
    `0` sends the pixels instead. `vitriton serve` sets 16 MiB."""
    default_model: str | None = None
    """Model id that `POST /` means and whose readiness `/health` reports; unset, `/health` asks
    whether Triton is up."""
    tokens_file: Path | None = None
    """File of tokens that `vitriton token` keeps; read again on change. Unset, callers need no
    token."""
    allow_anonymous: bool = False
    """With a file of tokens: serve requests without a token too; a wrong token is still refused."""
    request_timeout_s: PositiveFloat = 60.0
    """Time from a request's headers to its answer, in seconds. Waiting for a model to load is not
    counted."""
    keep_alive_s: Annotated[float, Field(ge=0.1, le=86_400)] = 75.0
    """How long a connection may stay without a complete request head, in seconds: idle between two
    requests, or while a head arrives. Keep it above the idle time of the load balancer in front,
    60 s for most."""
    cold_start_wait_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 30.0
    """How long a request for a model that is not loaded is held before it is answered 503, in
    seconds. At least 1, as some clients repeat a 503 at once."""
    wait_for_model_max_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 120.0
    """The same for a request with `x-wait-for-model` or `x-scale-up-timeout`."""
    max_body_bytes: Annotated[int, Field(gt=0, le=1024**3)] = 14 * 1024 * 1024
    """Largest request body: a 10 MiB image, or the same as base64 in JSON; at most 1 GiB."""
    max_image_pixels: Annotated[int, Field(gt=0, le=178_956_970)] = 64_000_000
    """Largest image, width × height, read from its header before it is decoded; at most Pillow's
    own limit, 178,956,970."""
    decode: DecodeMode = "fast"
    """How images are decoded and resized: `reference` bit for bit as transformers with Pillow,
    `fast` within a grey level of it for bilinear, `scaled` with large JPEGs decoded to fewer
    pixels; docs/image-modes.md has the figures."""
    max_inputs: PositiveInt = 32
    """Images in one request whose `inputs` is a list."""
    cache_bytes: Annotated[int, Field(ge=0)] = 16 * 1024 * 1024
    """Memory of each process for the logits of images seen before; `0` turns the cache off."""
    cache_ttl_s: PositiveFloat = 3600.0
    """How long these logits are kept, in seconds."""
    max_inflight: PositiveInt = 256
    """Requests that a process works on at the same time. A request over the limit is answered 429,
    without waiting."""
    max_calls_per_model: PositiveInt = 8
    """Calls to Triton that a process runs at the same time for one model. Images that are ready
    meanwhile wait and share the next call."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log line that is written."""

    @property
    def worker_count(self) -> int:
        """Processes to start."""
        return self.workers or max(1, available_cpus() // _CPUS_PER_WORKER)

    @property
    def decoding_threads(self) -> int:
        """Of each process, so that all of them together have one for each processor."""
        return math.ceil(available_cpus() / self.worker_count)


def configured_tokens_file() -> Path | None:
    """`GATEWAY_TOKENS_FILE`, for a command that needs no other setting."""
    value = os.environ.get("GATEWAY_TOKENS_FILE")
    return Path(value) if value else None


def load_settings() -> Settings:
    """Settings from the environment.

    Raises:
        InvalidSettings: The first value that cannot be used.
    """
    try:
        return Settings()
    except ValidationError as exc:
        error = exc.errors()[0]
        name = "_".join(str(part) for part in error["loc"])
        raise InvalidSettings(f"GATEWAY_{name.upper()}={error['input']!r}: {error['msg']}") from exc
