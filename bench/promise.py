"""A figure that the project promises, and what a run measured."""

from dataclasses import dataclass
from typing import Final

KEPT: Final = {True: "yes", False: "**no**"}


@dataclass(frozen=True, slots=True)
class Promise:
    """A figure that the project promises, and what was measured."""

    what: str
    measured: float
    bound: float
    is_at_most: bool
    halting: float | None = None
    """The figure with processors that halt; none if that was not measured."""

    @property
    def is_kept(self) -> bool:
        """Whether the measured figure is on the right side."""
        return self._is_within(self.measured)

    @property
    def is_kept_halting(self) -> bool:
        """Whether the figure with processors that halt is on the right side, if measured."""
        return self.halting is None or self._is_within(self.halting)

    @property
    def bound_text(self) -> str:
        """The bound with its sign."""
        return f"{'≤' if self.is_at_most else '≥'} {self.bound:g}"

    def _is_within(self, figure: float) -> bool:
        return figure <= self.bound if self.is_at_most else figure >= self.bound


def at_most(what: str, measured: float, bound: float, halting: float | None = None) -> Promise:
    """A figure with an upper bound."""
    return Promise(what, measured, bound, is_at_most=True, halting=halting)


def at_least(what: str, measured: float, bound: float, halting: float | None = None) -> Promise:
    """A figure with a lower bound."""
    return Promise(what, measured, bound, is_at_most=False, halting=halting)
