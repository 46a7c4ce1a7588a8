"""Tables of scores for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spacy_relx.cli._common import stdout

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.table import Table

#: Width of a table that goes to a file or another program.
_WIDTH = 160


def make_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, n_text: int = 1) -> Table:
    """Make a table; the first `n_text` columns are words, the others figures."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < n_text else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def show(table: Table) -> None:
    """Print a table on standard output."""
    console = stdout()
    if not console.is_terminal:
        console.width = _WIDTH
    # The console leaves long lines of messages alone; a table is laid out to the width there is.
    console.soft_wrap = False
    console.print(table)


def figure(value: float | None, digits: int = 3) -> str:
    """A ratio as text; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def with_interval(value: float, interval: Mapping[str, Any] | None) -> str:
    """A score with its interval, as text."""
    if interval is None:
        return figure(value)
    return f"{figure(value)} [{figure(interval['low'])}, {figure(interval['high'])}]"
