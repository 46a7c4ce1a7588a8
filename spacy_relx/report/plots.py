"""Pictures of a report as SVG to put into a page.

matplotlib draws them, with stand-ins for colours; the stand-ins become CSS variables, so that one picture reads on a
light and on a dark page. Nothing is written to files and no display is needed.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from spacy_relx.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Stand-in colours and the CSS variables that take their place.
INK, MUTED, LINE, ACCENT, SECOND = "#0a0b0c", "#6a6b6c", "#cacbcc", "#1a5bdc", "#da5b1c"
#: Pixels on the page for a point of the drawing.
_PIXELS = 1.35
_VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", ACCENT: "--accent", SECOND: "--second"}
_SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "relx"}


@dataclass(frozen=True, slots=True)
class Dot:
    """A score in the overview.

    Attributes:
        name: What was scored.
        value: The score, 0..1.
        low: Lower end of its interval, or None.
        high: Upper end of its interval, or None.
        is_published: Whether others measured it.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    is_published: bool = False


def check_matplotlib() -> None:
    """Raise an error that says what to do if matplotlib is not installed.

    Raises:
        ConfigError: If it is not.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "The pictures of a report need matplotlib, which is not installed. Install it with "
            "`pip install 'spacy-relx[viz]'`, or leave the pictures out with --no-plots."
        ) from error


def overview(groups: Sequence[tuple[str, Sequence[Dot]]], *, name: str) -> str:
    """Draw the scores of each data set on one line a system: dots for runs, hollow diamonds for published figures.

    Args:
        groups: (data set, its scores).
        name: Prefix of the ids in the markup; two pictures of a page need two.
    """
    n_lines = sum(len(dots) + 1.5 for _, dots in groups)
    figure, axes = _figure(6.4, 0.5 + 0.24 * n_lines)
    y = 0.0
    ticks: list[float] = []
    labels: list[Dot] = []
    for title, dots in groups:
        axes.text(-0.02, y, title, ha="right", va="center", fontweight="bold", color=INK, parse_math=False)
        y += 1
        for dot in dots:
            if dot.low is not None and dot.high is not None:
                axes.plot([dot.low, dot.high], [y, y], color=ACCENT, linewidth=2, solid_capstyle="butt", alpha=0.55)
            marker, fill, edge = ("D", "none", MUTED) if dot.is_published else ("o", ACCENT, ACCENT)
            axes.plot(
                [dot.value], [y], marker=marker, mfc=fill, mec=edge, markersize=6, linestyle="none", clip_on=False
            )
            ticks.append(y)
            labels.append(dot)
            y += 1
        y += 0.5
    # A name may hold a dollar sign, which is no formula.
    axes.set_yticks(ticks, [_shorten(dot.name) for dot in labels], parse_math=False)
    for tick, dot in zip(axes.get_yticklabels(), labels):
        tick.set_color(MUTED if dot.is_published else INK)
    axes.set_ylim(y - 0.9, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("positive-class micro-F1")
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return _svg(figure, name, "Micro-F1 of each run with its interval, beside published figures")


def precision_recall(
    points: Sequence[tuple[float, float]], at: tuple[float, float] | None, *, name: str, label: str
) -> str:
    """Draw precision over recall.

    Args:
        points: (recall, precision) at falling thresholds.
        at: The point that the run reports.
        name: Prefix of the ids in the markup.
        label: What the picture says to those who do not see it.
    """
    figure, axes = _figure(3.9, 3.5)
    for f in (0.2, 0.4, 0.6, 0.8):
        recalls = [f / 2 + 1e-6 + i * (1 - f / 2 - 1e-6) / 80 for i in range(1, 81)]
        curve = [(r, f * r / (2 * r - f)) for r in recalls if f * r / (2 * r - f) <= 1]
        axes.plot(*zip(*curve), color=LINE, linewidth=0.8)
        axes.text(1.01, curve[-1][1], f"F1 {f:.1f}", color=MUTED, fontsize=7.5, va="center")
    if points:
        axes.plot(*zip(*points), color=ACCENT, linewidth=2)
    if at is not None:
        axes.plot([at[0]], [at[1]], marker="o", markersize=7, mfc=SECOND, mec=SECOND, linestyle="none", clip_on=False)
    _unit_square(axes, "recall", "precision")
    return _svg(figure, name, label)


def reliability(bins: Sequence[tuple[float, float, int]], *, name: str, label: str) -> str:
    """Draw how often answers of a score were right.

    Args:
        bins: (mean score, share of right answers, number of answers); bins without answers are left out.
        name: Prefix of the ids in the markup.
        label: What the picture says to those who do not see it.
    """
    figure, axes = _figure(3.9, 3.5)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    most = max((n for _, _, n in bins), default=1)
    for score, share, n in bins:
        axes.plot([score, score], [score, share], color=SECOND, linewidth=1.2, alpha=0.8)
        axes.plot([score], [share], marker="o", markersize=3 + 8 * (n / most) ** 0.5, mfc=ACCENT, mec=ACCENT)
    _unit_square(axes, "score of the answer", "share of right answers")
    return _svg(figure, name, label)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """Return a figure of a size in inches, and its axes, in the stand-in colours."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(MUTED)
    axes.tick_params(colors=INK, which="both")
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    return figure, axes


def _unit_square(axes: Any, x: str, y: str) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _svg(figure: Any, name: str, label: str) -> str:
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(
            buffer,
            format="svg",
            bbox_inches="tight",
            pad_inches=0.05,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Ids count from one in every picture, and a page holds several.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    text = re.sub(r"font: ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font: \1system-ui, sans-serif", text)
    box = re.search(r'viewBox="(?:[\d.]+ ){2}([\d.]+) [\d.]+"', text)
    assert box is not None  # matplotlib always writes one
    # All pictures of a page are drawn to one scale, so that their letters are of one size; narrow screens shrink them.
    width = f"max-width: {float(box[1]) * _PIXELS:.0f}px"
    tag = f'<svg role="img" aria-label="{escape(label)}" style="{width}" {box[0]}>'
    return re.sub(r"^<svg[^>]*>", lambda _: tag, text).strip()


def _shorten(name: str, limit: int = 34) -> str:
    return name if len(name) <= limit else f"{name[: limit - 1]}…"
