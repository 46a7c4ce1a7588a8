"""Curves of a training run, from its log: losses and scores over the steps. Needs matplotlib, and no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: Steps to the left of a point over which a loss is averaged: a share of all.
_SMOOTHING = 50


@dataclass(frozen=True, slots=True)
class Curve:
    """What was measured, and at which steps.

    Attributes:
        steps: Shape: (n_points,)
        values: Shape: (n_points,)
        name: What the legend calls it.
    """

    steps: Sequence[int]
    values: Sequence[float]
    name: str


def draw_rows_run(folder: Path) -> Path | None:
    """Draw the run of `python -m spacy_relx.training` whose log is in a folder.

    Returns:
        The picture, `curves.svg` in the folder, or None where matplotlib is not installed.
    """
    lines = _read(folder / "log.jsonl")
    losses = Curve([line["step"] for line in lines], [line["loss"] for line in lines], "loss of a step")
    looks = [line for line in lines if "dev" in line]
    steps = [line["step"] for line in looks]
    dev = Curve(steps, [line["dev"]["loss"] for line in looks], "development loss")
    right = Curve(steps, [line["dev"]["accuracy"] for line in looks], "development accuracy")
    return _draw(folder / "curves.svg", losses, [dev], right)


def draw_spacy_run(log: Path, component: str) -> Path | None:
    """Draw a run of `spacy train` from the file that `spacy.ConsoleLogger.v3` wrote.

    Args:
        log: Its `output_file`.
        component: Name of the component whose losses are drawn.

    Returns:
        The picture, `curves.svg` beside the log, or None where matplotlib is not installed or nothing was logged.
    """
    lines = _read(log)
    if not lines:
        return None
    steps = [line["step"] for line in lines]
    # spaCy adds losses up from one evaluation to the next; its steps count from 0.
    n_steps = [step - before for step, before in zip(steps, [-1, *steps])]
    means = [line["losses"][component] / n for line, n in zip(lines, n_steps)]
    losses = Curve(steps, means, "loss of a step, mean since the last score")
    scores = Curve(steps, [line["score"] for line in lines], "score on development documents")
    return _draw(log.with_name("curves.svg"), losses, [], scores)


def _read(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def _draw(path: Path, losses: Curve, others: Sequence[Curve], scores: Curve) -> Path | None:
    """Draw losses on the left axis, and scores, which are from 0 to 1, on the right one."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    width = len(losses.values) // _SMOOTHING
    if width > 1:
        axes.plot(losses.steps, losses.values, color="0.8", linewidth=0.7, label=losses.name)
        axes.plot(losses.steps, _means(losses.values, width), color="tab:blue", label=f"mean of {width} steps")
    else:
        axes.plot(losses.steps, losses.values, ".-", color="tab:blue", label=losses.name)
    for curve in others:
        if curve.steps:
            axes.plot(curve.steps, curve.values, "o-", color="tab:orange", label=curve.name)
    axes.set(xlabel="step", ylabel="loss of a label token")
    axes.set_ylim(bottom=0)
    handles, names = axes.get_legend_handles_labels()
    if scores.steps:
        right = axes.twinx()
        right.plot(scores.steps, scores.values, "s--", color="tab:green", label=scores.name)
        right.set(ylabel=scores.name, ylim=(0, 1))
        more, more_names = right.get_legend_handles_labels()
        handles, names = handles + more, names + more_names
    # Below the axes no curve passes behind it.
    figure.legend(handles, names, loc="outside lower center", ncols=len(handles), frameon=False, fontsize="small")
    figure.savefig(path)
    return path


def _means(values: Sequence[float], width: int) -> list[float]:
    """The mean of each value and the up to `width` - 1 before it."""
    parts = [values[max(0, i - width + 1) : i + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]
