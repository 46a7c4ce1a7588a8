"""The bar that long commands show on a terminal: done, how fast, and how long it still takes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from spacy_relx.cli._common import stderr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Show(Protocol):
    """Shows how far a command is."""

    def __call__(self, n_done: int, n_failed: int = 0, /) -> None:
        """Take how many are done, those of an earlier run among them, and how many of them failed."""


@contextmanager
def progress(title: str, unit: str, count: Callable[[], int | None], quiet: bool) -> Iterator[Show]:
    """Show how many are done, how many a second and the time left, if somebody can see it.

    Args:
        title: What is being done.
        unit: What is counted, in the plural.
        count: Returns how many there are, or None where that is not known; called only if it is shown.
        quiet: Whether to show nothing.
    """
    console = stderr()
    if quiet or not console.is_terminal:
        yield lambda n_done, n_failed=0, /: None
        return

    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    total = count()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        # The time left, or where that cannot be known, the time it took so far.
        TimeElapsedColumn() if total is None else TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, rate="", failed="")
        is_new = True

        def show(n_done: int, n_failed: int = 0, /) -> None:
            nonlocal is_new
            if is_new:  # what an earlier run did is no sign of this one's speed
                bar.reset(task, completed=n_done)
                is_new = False
            speed = bar.tasks[0].speed
            rate = f"{speed:.1f} {unit}/s" if speed else ""
            bar.update(task, completed=n_done, rate=rate, failed=f"{n_failed} failed" if n_failed else "")

        yield show
