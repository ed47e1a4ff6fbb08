"""Read the gateway's settings from the environment; no other module reads `GATEWAY_*` variables.

Each field has a variable `GATEWAY_<FIELD>`. Its docstring is its row in `docs/configuration.md`.
A bad value ends the process before the port opens.
"""

import math
import os
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.runtime.processors import available_cpus

# Decoding releases the GIL, and the rest of a request takes a third of the request's time. So one
# process keeps about four processors busy.
_CPUS_PER_WORKER: Final = 4

DecodeMode = Literal["reference", "fast", "scaled"]

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class InvalidSettings(ValueError):
    """A setting cannot be used. The message is one line with the variable, value and reason."""


class Settings(BaseSettings):
    """All settings of the gateway. The names have the units."""

    model_config = SettingsConfigDict(
        env_prefix="GATEWAY_", frozen=True, use_attribute_docstrings=True
    )

    host: str = "127.0.0.1"
    """Address that the HTTP port is opened on; `0.0.0.0` opens it on every interface."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """HTTP port; `0` takes a free one."""
    workers: PositiveInt | None = None
    """Number of processes that share the port. Each has its own cache, decoding threads, and limits
    on requests and calls. If unset, there is one process for every four processors of the quota."""
    triton_url: str = "127.0.0.1:8001"
    """Triton's gRPC endpoint, `host:port`, without a scheme."""
    shared_memory_bytes: Annotated[int, Field(ge=0)] = 0
    """Memory in `/dev/shm` through which each process passes pixels to a Triton on the same host.
    With `0`, pixels are sent over gRPC instead. `vitriton serve` sets 16 MiB."""
    default_model: str | None = None
    """Id of the model that answers `POST /` and whose readiness `/health` reports. If unset,
    `/health` reports whether Triton is up."""
    tokens_file: Path | None = None
    """File of the tokens that `vitriton token` manages. The gateway reads it again when it changes.
    If unset, callers need no token."""
    allow_anonymous: bool = False
    """Serve requests without a token even if there is a file of tokens. A wrong token is still
    refused."""
    request_timeout_s: PositiveFloat = 60.0
    """Time from a request's headers to its answer, in seconds. Waiting for a model to load is not
    counted."""
    keep_alive_s: Annotated[float, Field(ge=0.1, le=86_400)] = 75.0
    """How long a connection may stay without a complete request head, in seconds: idle between two
    requests, or while a head arrives. Keep it above the idle time of the load balancer, which is
    60 s for most."""
    cold_start_wait_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 30.0
    """How long a request for a model that is not loaded is held before it is answered 503, in
    seconds. At least 1, because some clients repeat a 503 at once."""
    wait_for_model_max_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 120.0
    """How long a request with `x-wait-for-model` or `x-scale-up-timeout` is held at most, in
    seconds."""
    max_body_bytes: Annotated[int, Field(gt=0, le=1024**3)] = 14 * 1024 * 1024
    """Largest request body, at most 1 GiB. The default admits an image of 10 MiB, also as base64 in
    JSON."""
    max_image_pixels: Annotated[int, Field(gt=0, le=178_956_970)] = 64_000_000
    """Largest image, width × height, by its header before it is decoded. At most 178,956,970,
    Pillow's own limit."""
    decode: DecodeMode = "fast"
    """How images are decoded and resized. `reference` equals transformers with Pillow bit for bit.
    `fast` differs from it by at most one grey level with the bilinear filter. `scaled` also decodes
    large JPEGs to fewer pixels. docs/image-modes.md has the figures."""
    max_inputs: PositiveInt = 32
    """Largest number of images in one request whose `inputs` is a list."""
    cache_bytes: Annotated[int, Field(ge=0)] = 16 * 1024 * 1024
    """Memory of each process for the logits of images seen before; `0` turns the cache off."""
    cache_ttl_s: PositiveFloat = 3600.0
    """How long the cache keeps logits, in seconds."""
    max_inflight: PositiveInt = 256
    """Largest number of requests that a process works on at the same time. A request over the limit
    is answered 429, without waiting."""
    max_calls_per_model: PositiveInt = 8
    """Largest number of calls to Triton that a process runs at the same time for one model. Images
    that are ready while all calls run wait and share the next call."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest severity of the log lines that are written."""

    @property
    def worker_count(self) -> int:
        """Number of processes to start."""
        return self.workers or max(1, available_cpus() // _CPUS_PER_WORKER)

    @property
    def decoding_threads(self) -> int:
        """Decoding threads of each process. All processes together have one for each processor."""
        return math.ceil(available_cpus() / self.worker_count)


def configured_tokens_file() -> Path | None:
    """The value of `GATEWAY_TOKENS_FILE`, for a command that needs no other setting."""
    value = os.environ.get("GATEWAY_TOKENS_FILE")
    return Path(value) if value else None


def load_settings() -> Settings:
    """Read all settings from the environment.

    Raises:
        InvalidSettings: A value cannot be used. The message names the first such variable.
    """
    try:
        return Settings()
    except ValidationError as exc:
        error = exc.errors()[0]
        name = "_".join(str(part) for part in error["loc"])
        raise InvalidSettings(f"GATEWAY_{name.upper()}={error['input']!r}: {error['msg']}") from exc
