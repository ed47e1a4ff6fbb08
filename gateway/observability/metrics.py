"""The Prometheus series that the gateway has, and their exposition.

Labels are route templates and error classes, never text from a caller.
Where several processes share the port, each process counts into files of its own in the folder
that `PROMETHEUS_MULTIPROC_DIR` names. The process that is scraped adds all files up.
"""

import gzip
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    multiprocess,
)
from prometheus_client.exposition import choose_encoder, gzip_accepted

MULTIPROCESS_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client reads this variable when it is imported, so it is no field of `Settings`."""

# Seconds. A cached ViT answer takes about a millisecond, a cold CPU batch of ViT-L tens of seconds.
_BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)

_KNOWN: Final = re.compile(r"(application/openmetrics-text|text/plain)\s*(;|$)", re.IGNORECASE)
# The weight of a value, 0 to 1 with at most three decimals.
_QUALITY: Final = re.compile(
    r";\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*(?:;|$)", re.IGNORECASE | re.ASCII
)


class Metrics:
    """All series of one gateway process, in a registry of their own; callers count on them."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._folder = os.environ.get(MULTIPROCESS_FOLDER)
        if self._folder is not None:
            _forget_dead_processes(Path(self._folder))
        counter = partial(Counter, registry=self._registry)
        histogram = partial(Histogram, registry=self._registry, buckets=_BUCKETS)
        gauge = partial(Gauge, registry=self._registry, multiprocess_mode="livesum")
        self.requests = counter(
            "gateway_requests",
            "HTTP requests answered, by route template and status code.",
            ["route", "code"],
        )
        self.request_seconds = histogram(
            "gateway_request_duration_seconds",
            "Time from the request's headers to the end of its answer.",
            ["route"],
        )
        self.inflight = gauge(
            "gateway_inflight_requests", "Requests for which no answer has been sent yet."
        )
        self.images = counter("gateway_images", "Images classified.")
        self.errors = counter(
            "gateway_errors", "Requests answered with an error, by its class.", ["error_type"]
        )
        self.load_seconds = histogram(
            "gateway_model_load_duration_seconds",
            "Time of a model's load on demand, failed ones included.",
        )
        sent = counter(
            "gateway_images_sent",
            "Images sent to Triton: as jpeg, which Triton decodes, or as pixels.",
            ["form"],
        )
        self.sent_jpegs, self.sent_pixels = map(sent.labels, ("jpeg", "pixels"))
        self._register_stages(histogram)
        self._register_cache(counter, gauge)

    def _register_stages(self, histogram: Callable[..., Histogram]) -> None:
        stages = histogram(
            "gateway_stage_duration_seconds",
            "Time of one image in a stage: decode, infer (Triton's queue included), postprocess.",
            ["stage"],
        )
        self.decode_seconds, self.infer_seconds, self.postprocess_seconds = map(
            stages.labels, ("decode", "infer", "postprocess")
        )

    def _register_cache(self, counter: Callable[..., Counter], gauge: Callable[..., Gauge]) -> None:
        lookups = counter(
            "gateway_cache_requests",
            "Images looked up in the cache: hit, miss, or shared with one in flight.",
            ["result"],
        )
        self.cache_hits, self.cache_misses, self.cache_shared = map(
            lookups.labels, ("hit", "miss", "shared")
        )
        self.cache_bytes = gauge("gateway_cache_bytes", "Memory that the cached logits take.")

    def render(self, accept: str, accept_encoding: str) -> tuple[bytes, dict[str, str]]:
        """The series of all processes that share the port, and the headers of the answer.

        Args:
            accept: The request's header: asks for Prometheus text 0.0.4, its successor or
                OpenMetrics. Text 0.0.4 is the answer to everything else.
            accept_encoding: The request's header; `gzip` is heeded.
        """
        try:
            encode, content_type = choose_encoder(_first_known(accept))
        except (TypeError, ValueError):
            # A version that is no number; the library compares it with one.
            encode, content_type = choose_encoder("")
        body = encode(self._series())
        headers = {"content-type": content_type, "vary": "accept, accept-encoding"}
        if not gzip_accepted(",".join(_by_preference(accept_encoding))):
            return body, headers
        return gzip.compress(body), headers | {"content-encoding": "gzip"}

    def _series(self) -> CollectorRegistry:
        if self._folder is None:
            return self._registry
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, self._folder)  # type: ignore[no-untyped-call]  # the library's
        return registry


def _first_known(accept: str) -> str:
    """The format that a client prefers, of those that `choose_encoder` knows; else nothing."""
    return next((value for value in _by_preference(accept) if _KNOWN.match(value)), "")


def _by_preference(header: str) -> list[str]:
    """A header's values by `q` (RFC 9110 §12.4.2), the largest first, refused ones left out."""
    values: list[tuple[float, str]] = []
    for value in header.split(","):
        found = _QUALITY.search(value)
        values.append((float(found[1]) if found else 1.0, value.strip()))
    wanted = [pair for pair in values if pair[0] > 0]
    return [value for _, value in sorted(wanted, key=lambda pair: -pair[0])]


def _forget_dead_processes(folder: Path) -> None:
    """Take the gauges of processes that have ended out of the sums; what they counted stays."""
    for file in folder.glob("gauge_live*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not Path(f"/proc/{pid}").exists():
            multiprocess.mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]  # as above
