"""Pictures of result files, as SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def suite(path: Path, result: Mapping[str, Any]) -> None:
    """Draw the rivals as bars and every sweep as a line, with the spread."""
    figure, axes = _figure(1 + len(result["sweeps"]))
    _bars(axes[0], result["main"])
    for axis, (name, rows) in zip(axes[1:], result["sweeps"].items()):
        good = [row for row in rows if "pairs_per_second" in row]
        _line(axis, [str(row["value"]) for row in good], [row["pairs_per_second"] for row in good])
        axis.set_title(name)
        axis.set_ylabel("pairs a second")
    _save(figure, path, result)


def growth(path: Path, result: Mapping[str, Any]) -> None:
    """Draw seconds against pairs and documents, and memory against documents."""
    figure, axes = _figure(3)
    parts = (
        ("entities", "pairs", "seconds", "pairs of one document"),
        ("documents", "documents", "seconds", "documents"),
        ("memory", "documents", "memory_mib", "documents, MiB held"),
    )
    for axis, (key, x, y, title) in zip(axes, parts):
        for engine, rows in result[key].items():
            axis.plot([row[x] for row in rows], [row[y] for row in rows], marker="o", label=engine)
        axis.set_title(title)
        axis.set_ylabel(y.replace("_", " "))
        if key != "memory":
            axis.set_xscale("log")
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
        axis.legend()
    _save(figure, path, result)


def _figure(n: int) -> tuple[Any, Sequence[Any]]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    columns = min(n, 3)
    rows = -(-n // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.subplots(rows, columns, squeeze=False).flatten()


def _bars(axis: Any, main: Mapping[str, Any]) -> None:
    rows = [("ours", main["pairs_per_second"])]
    rows += [(n, r["pairs_per_second"]) for n, r in main["rivals"].items() if "pairs_per_second" in r]
    middles = [summary["median"] for _, summary in rows]
    axis.barh([name for name, _ in rows], middles, xerr=_spread([s for _, s in rows]), capsize=3)
    axis.invert_yaxis()
    axis.set_title("pairs a second")


def _line(axis: Any, values: list[str], summaries: list[Mapping[str, float]]) -> None:
    axis.errorbar(values, [s["median"] for s in summaries], yerr=_spread(summaries), marker="o", capsize=3)
    axis.set_ylim(bottom=0)


def _spread(summaries: Sequence[Mapping[str, float]]) -> list[list[float]]:
    return [[s["median"] - s["min"] for s in summaries], [s["max"] - s["median"] for s in summaries]]


def _save(figure: Any, path: Path, result: Mapping[str, Any]) -> None:
    machine = result["machine"]
    where = machine.get("gpu") if result["model"]["device"] == "cuda" else machine["processor"]
    figure.suptitle(f"{result['model']['base']}, {where}, {result['threads']} threads", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
