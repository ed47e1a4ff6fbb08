"""What operators see of the backend: lines in Triton's log, and counters among its metrics."""

from collections.abc import Sequence
from typing import Any, Final

_GRAPHS: Final = "vitriton_cuda_graphs_total"
_UNDECODABLE: Final = "vitriton_undecodable_jpegs_total"


class Events:
    """Reports what one instance does. Each counter costs a message to Triton, so they are rare."""

    def __init__(self, model: str, version: str, pb_utils: Any) -> None:
        """Make the counters.

        Args:
            model: Triton's name of the model.
            version: Its version.
            pb_utils: Triton's module of that name.
        """
        self._logger = pb_utils.Logger
        self._of = f"{model}, version {version}"
        labels = {"model": model, "version": version}
        family = pb_utils.MetricFamily
        self._families = [
            family(
                name=_GRAPHS,
                description="Batch sizes with and without a CUDA graph, of all instances",
                kind=family.COUNTER,
            ),
            family(
                name=_UNDECODABLE,
                description="JPEGs that the backend could not decode, so that the gateway tries it",
                kind=family.COUNTER,
            ),
        ]
        graphs, undecodable = self._families
        self._graphs = {
            outcome: graphs.Metric(labels=labels | {"outcome": outcome})
            for outcome in ("captured", "failed")
        }
        self._undecodable = undecodable.Metric(labels=labels)

    def ready(self, device: str, decoders: Sequence[str], captured: Sequence[int]) -> None:
        """The instance is loaded."""
        how = f"decodes JPEGs by {', then '.join(decoders)}" if decoders else "takes pixels"
        sizes = f"CUDA graphs for batches of {', '.join(map(str, captured))}"
        self._logger.log_info(
            f"{self._of} on {device}: {how}; {sizes if captured else 'no CUDA graphs'}"
        )
        if captured:
            self._graphs["captured"].increment(len(captured))

    def captures_failed(self, failures: dict[int, str]) -> None:
        """Batch sizes that have no CUDA graph, each with the reason."""
        for size, reason in failures.items():
            self._logger.log_warn(
                f"{self._of}: no CUDA graph for a batch of {size}; the next larger one computes it"
                f" if there is one: {reason}"
            )
        if failures:
            self._graphs["failed"].increment(len(failures))

    def undecodable(self, jpegs: int) -> None:
        """A batch had so many JPEGs that could not be decoded."""
        self._undecodable.increment(jpegs)
