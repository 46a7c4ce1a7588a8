"""A report as files: the page, and the same as Markdown, JSON and CSV."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from spacy_relx import __version__
from spacy_relx.report import plots
from spacy_relx.report.confusion import NO_ANSWER, NO_RELATION, OTHERS, SPECIAL, confusion_table
from spacy_relx.report.contents import WAY_TITLES
from spacy_relx.report.published import dataset_title, figures_for, published
from spacy_relx.report.samples import KINDS
from spacy_relx.report.tables import COMPARISON_NOTE, by_way, settings_of, to_csv, to_json, to_markdown
from spacy_relx.report.thresholds import THRESHOLDS_NOTE

if TYPE_CHECKING:
    from pathlib import Path

    from spacy_relx.report.contents import Report, RunReport

PAGE = "report.html"
SPECIALS = (OTHERS, NO_RELATION, *SPECIAL)


def write_report(report: Report, folder: Path, *, with_plots: bool = True) -> list[Path]:
    """Write all forms of a report into a folder.

    Args:
        report: The report.
        folder: Made if need be; files of an earlier report are replaced.
        with_plots: Whether the page has pictures, which matplotlib draws.

    Returns:
        The files, the page first.

    Raises:
        ConfigError: Pictures are asked for and matplotlib is not installed.
    """
    contents = {
        PAGE: to_html(report, with_plots=with_plots),
        "report.md": to_markdown(report),
        "report.json": json.dumps(to_json(report), ensure_ascii=False, indent=1) + "\n",
        **to_csv(report),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        scratch = folder / f"{name}.part"
        scratch.write_text(text, encoding="utf-8", newline="")
        scratch.replace(folder / name)
    return [folder / name for name in contents]


def to_html(report: Report, *, with_plots: bool = True) -> str:
    """Return the report as one page that needs nothing else.

    Raises:
        ConfigError: Pictures are asked for and matplotlib is not installed.
    """
    if with_plots:
        plots.check_matplotlib()
    anchors = {run.name: f"run-{number}" for number, run in enumerate(report.runs, 1)}
    return _template().render(
        title=report.title,
        version=__version__,
        created=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        notes=report.notes,
        specials=SPECIALS,
        right_negative=(NO_RELATION, NO_ANSWER),
        confidence=f"{report.confidence:.0%}",
        published=published(),
        comparison_note=COMPARISON_NOTE,
        thresholds_note=THRESHOLDS_NOTE,
        sections=_sections(report, anchors, with_plots),
        runs=[_run(run, anchors[run.name], with_plots) for run in report.runs],
    )


@cache
def _template() -> Template:
    source = files("spacy_relx.report").joinpath("page.html.jinja").read_text("utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    return environment.from_string(source)


def _sections(report: Report, anchors: dict[str, str], with_plots: bool) -> list[dict[str, Any]]:
    sections = []
    for way, groups in by_way(report):
        shown = [
            {
                "title": f"{dataset_title(dataset)}, {split}",
                "runs": [
                    {
                        "name": run.name,
                        "anchor": anchors[run.name],
                        "scores": run.scores,
                        "part": run.part,
                        "at": run.at,
                    }
                    for run in runs
                ],
                "published": figures_for(runs[0].info),
            }
            for dataset, split, runs in groups
        ]
        title, about = WAY_TITLES[way]
        sections.append(
            {
                "way": way,
                "title": title,
                "about": about,
                "groups": shown,
                "has_thresholds": any(run.at for _, _, runs in groups for run in runs),
                "has_published": any(group["published"] for group in shown),
                "overview": _overview(way, shown) if with_plots else "",
                "comparisons": [c for c in report.comparisons if c.group[2] == way],
            }
        )
    return sections


def _overview(name: str, groups: list[dict[str, Any]]) -> Markup:
    drawn = []
    for group in groups:
        dots = [
            plots.Dot(run["name"], run["scores"].f, *(run["scores"].interval or (None, None)))
            for run in group["runs"]
            if run["scores"].f is not None
        ]
        dots += [plots.Dot(figure.system, figure.f1, is_published=True) for figure in group["published"]]
        if dots:
            drawn.append((group["title"], dots))
    # The picture is ours: matplotlib escapes what it writes into it.
    return Markup(plots.overview(drawn, name=name)) if drawn else Markup("")


def _run(run: RunReport, anchor: str, with_plots: bool) -> dict[str, Any]:
    table = confusion_table(run.confusions)
    precision_recall = reliability = ""
    if with_plots and len(run.curve) > 1:
        at = (run.scores.r, run.scores.p) if run.scores.r is not None and run.scores.p is not None else None
        precision_recall = plots.precision_recall(
            run.curve, at, name=f"{anchor}-pr", label=f"Precision over recall of {run.name}"
        )
    if with_plots and run.bins:
        reliability = plots.reliability(
            run.bins, name=f"{anchor}-rel", label=f"Reliability of the scores of {run.name}"
        )
    return {
        "name": run.name,
        "anchor": anchor,
        "dataset": run.dataset,
        "info": run.info,
        "way_title": WAY_TITLES[run.info.way][0],
        "threshold": run.threshold,
        "scores": run.scores,
        "labels": run.labels,
        "ece": run.ece,
        "confusion": table,
        "confusion_shown": sum(row not in SPECIALS for row in table.rows),
        "precision_recall_svg": Markup(precision_recall),
        "reliability_svg": Markup(reliability),
        "samples": [
            {"title": KINDS[kind], "n": n, "samples": samples} for kind, (n, samples) in run.samples.items() if n
        ],
        "settings": settings_of(run),
    }
