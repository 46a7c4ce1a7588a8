"""Times of several things in turn, A B C A B C, so that what else a machine does meets all of them alike."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Summary:
    """The middle and the spread of some measurements.

    Attributes:
        n: Number of measurements.
        median: The middle one.
        min: The least.
        max: The greatest.
    """

    n: int
    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """Summarise at least one value."""
        return cls(len(values), statistics.median(values), min(values), max(values))

    def to_dict(self, digits: int = 4) -> dict[str, float]:
        """Plain values, to so many significant digits."""

        def rounded(value: float) -> float:
            return float(f"{value:.{digits}g}")

        return {
            "n": self.n,
            "median": rounded(self.median),
            "min": rounded(self.min),
            "max": rounded(self.max),
        }


def interleave(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: int = 1,
    synchronise: Callable[[], object] | None = None,
    progress: Callable[[str], object] | None = None,
) -> dict[str, list[float]]:
    """Run things in turn and time them.

    Args:
        runs: What is run, by name.
        rounds: How often each is timed.
        warm_up: Rounds before those, of which nothing is kept.
        synchronise: Waits for a device that computes in the background; called on both sides of a run.
        progress: Told what is about to be run.

    Returns:
        The seconds of every timed run, by name. A run may return the seconds itself (a `float`), which then count: what
        another process measured is without the way there and back.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds + warm_up):
        for name, run in runs.items():
            if progress is not None:
                progress(f"round {round_ + 1} of {rounds + warm_up}: {name}")
            if synchronise is not None:
                synchronise()
            start = time.perf_counter()
            told = run()
            if synchronise is not None:
                synchronise()
            took = told if isinstance(told, float) else time.perf_counter() - start
            if round_ >= warm_up:
                seconds[name].append(took)
    return seconds


def rates(seconds: Sequence[float], n_units: float) -> list[float]:
    """Units a second of each run."""
    return [n_units / value for value in seconds]


def ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """Value over other, round by round, so that a slow moment of the machine cancels."""
    return [a / b for a, b in zip(values, others, strict=True)]
