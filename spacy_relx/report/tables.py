"""A report as Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from spacy_relx.report.confusion import OTHERS, confusion_table
from spacy_relx.report.contents import DASH, WAY_TITLES, flatten
from spacy_relx.report.published import dataset_title, figures_for, published
from spacy_relx.report.thresholds import THRESHOLDS_NOTE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from spacy_relx.evaluation.records import Way
    from spacy_relx.report.contents import Report, RunReport
    from spacy_relx.report.samples import Sample

COMPARISON_NOTE = (
    "The paired test swaps the answers of the two runs document by document; p is how often a difference at least as "
    "large comes out by chance. With many comparisons, some small p come by chance too."
)
_ESCAPES = str.maketrans(
    {
        **{character: f"\\{character}" for character in "\\`*[]"},
        **{character: f"&#{ord(character)};" for character in "&<>|#"},
        "\0": "\\_",
        "\n": " ",
    }
)
#: Settings that are data of many lines; the JSON has them.
_LONG = ("schema", "mirrors", "symmetric")
#: Most labels of a confusion matrix in Markdown, which has no room for more.
_MD_LABELS = 12
RESULT_COLUMNS = ("P", "R", "micro-F1", "interval", "macro-F1", "ceiling", "candidate recall", "FP rate", "pairs")


def by_way(report: Report) -> list[tuple[Way, list[tuple[str, str, list[RunReport]]]]]:
    """Group runs by protocol, then by data set and split, in the order of the report.

    Protocols never share a table, and runs that were asked in the published way have one of their own.
    """
    found: dict[Way, dict[tuple[str, str], list[RunReport]]] = {}
    for run in report.runs:
        found.setdefault(run.info.way, {}).setdefault((run.info.dataset, run.info.split), []).append(run)
    return [
        (way, [(dataset, split, runs) for (dataset, split), runs in found[way].items()])
        for way in WAY_TITLES
        if way in found
    ]


def to_json(report: Report) -> dict[str, Any]:
    """Return the report as plain values."""
    return {
        "title": report.title,
        "confidence": report.confidence,
        "n_resamples": report.n_resamples,
        "notes": list(report.notes),
        "protocols": {
            way: [
                {
                    "dataset": dataset,
                    "split": split,
                    "runs": [_run_json(run) for run in runs],
                    "published": [asdict(figure) for figure in figures_for(runs[0].info)],
                    "comparisons": [
                        {"run": c.name, "against": c.other, **_without(asdict(c), "group", "name", "other")}
                        for c in report.comparisons
                        if c.group == (dataset, split, way)
                    ],
                }
                for dataset, split, runs in groups
            ]
            for way, groups in by_way(report)
        },
        "published": {key: published()[key] for key in ("source", "url", "metric", "protocol", "split", "note")},
    }


def to_csv(report: Report) -> dict[str, str]:
    """Return the tables by file name: results, labels and confusions, a line each."""
    head = ("protocol", "dataset", "split", "run")

    def key(run: RunReport) -> tuple[str, ...]:
        return (run.info.way, run.info.dataset, run.info.split, run.name)

    results: list[Sequence[Any]] = []
    for _, groups in by_way(report):
        for _, _, runs in groups:
            for run in runs:
                s = run.scores
                low, high = s.interval or (None, None)
                rates = (s.macro_f, s.ceiling, s.candidate_recall, s.false_positive_rate)
                results.append((*key(run), "this report", s.p, s.r, s.f, low, high, *rates, s.n_pairs, s.n_gold))
            info = runs[0].info
            for figure in figures_for(info):
                row = (info.way, info.dataset, info.split, figure.system, published()["source"])
                results.append((*row, None, None, figure.f1, *(None,) * 8))
    columns = ("p", "r", "micro_f", "low", "high", "macro_f", "ceiling", "candidate_recall", "false_positive_rate")
    labels = [
        (*key(run), row.label, row.p, row.r, row.f, row.n_gold, row.n_answered, row.n_hits)
        for run in report.runs
        for row in run.labels
    ]
    confusions = [
        (*key(run), gold, answer, n) for run in report.runs for (gold, answer), n in sorted(run.confusions.items())
    ]
    at: list[Sequence[Any]] = []
    for run in report.runs:
        for found in run.at:
            low, high = found.interval or (None, None)
            at.append(
                (*key(run), found.what, found.p, found.r, found.f, low, high, found.macro_f, found.false_positive_rate)
            )
    at_columns = ("threshold", "p", "r", "micro_f", "low", "high", "macro_f", "false_positive_rate")
    return {
        "results.csv": _csv((*head, "source", *columns, "n_pairs", "n_gold"), results),
        "labels.csv": _csv((*head, "label", "p", "r", "f", "n_gold", "n_answered", "n_hits"), labels),
        "thresholds.csv": _csv((*head, *at_columns), at),
        "confusion.csv": _csv((*head, "gold", "answer", "n"), confusions),
    }


def to_markdown(report: Report) -> str:
    """Return the report as Markdown, without pictures."""
    lines = [f"# {_md(report.title)}", ""]
    lines += [f"> {_md(note)}\n" for note in report.notes]
    for way, groups in by_way(report):
        title, about = WAY_TITLES[way]
        lines += [f"## {title}", "", about, ""]
        has_published = False
        for dataset, split, runs in groups:
            rows: list[Sequence[str]] = [_result_row(run) for run in runs]
            for figure in figures_for(runs[0].info):
                has_published = True
                rows.append((f"*{_md(figure.system)}* (published)", DASH, DASH, f"*{figure.f1:.3f}*", *(DASH,) * 6))
            lines += [
                f"### {_md(dataset_title(dataset))}, {_md(split)}",
                "",
                *_md_table(("System", *RESULT_COLUMNS), rows),
                "",
            ]
        if has_published:
            about_them = published()
            lines += [f"Rows marked “published”: {about_them['note']} Source: {about_them['source']}.", ""]
        lines += _md_thresholds([run for _, _, runs in groups for run in runs])
        comparisons = [c for c in report.comparisons if c.group[2] == way]
        if comparisons:
            compared = [
                (
                    _md(c.dataset),
                    _md(c.name),
                    _md(c.other),
                    f"{c.difference:+.3f}",
                    _signed(c.interval),
                    "&lt; 0.001" if c.p_value < 0.001 else f"{c.p_value:.3f}",
                )
                for c in comparisons
            ]
            header = ("Data set", "Run", "against", "difference in micro-F1", "interval", "p")
            lines += ["### Runs compared", "", *_md_table(header, compared), "", COMPARISON_NOTE, ""]
    lines.append(f"Intervals: {report.confidence:.0%}, {report.n_resamples} bootstrap samples of documents.\n")
    for run in report.runs:
        lines += [*_md_run(run), ""]
    return "\n".join(lines).rstrip() + "\n"


def _md_thresholds(runs: Iterable[RunReport]) -> list[str]:
    rows = [
        (
            _md(run.name),
            _md(row.what),
            _num(row.p),
            _num(row.r),
            f"**{_num(row.f)}**",
            _interval(row.interval),
            _num(row.macro_f),
            _num(row.false_positive_rate),
        )
        for run in runs
        for row in run.at
    ]
    header = ("Run", "threshold", "P", "R", "micro-F1", "interval", "macro-F1", "FP rate")
    return ["### With thresholds", "", THRESHOLDS_NOTE, "", *_md_table(header, rows), ""] if rows else []


def _md_run(run: RunReport) -> list[str]:
    rows = [
        (_md(row.label), _num(row.p), _num(row.r), _num(row.f), str(row.n_gold), str(row.n_answered), str(row.n_hits))
        for row in run.labels
    ]
    title = WAY_TITLES[run.info.way][0].lower()
    lines = [f"## {_md(run.name)}", "", f"{_md(run.dataset)}, {_md(run.info.split)}, {title}", ""]
    lines += [f"- {_md(title)}: {_num(value)}" for title, value in run.scores.more]
    if run.ece is not None:
        lines.append(f"- expected calibration error: {_num(run.ece)}")
    lines += ["", *_md_table(("Label", "P", "R", "F1", "gold", "answered", "right"), rows)]
    lines += ["", "### Confusions", "", *_md_confusions(run)]
    errors = [f"- {kind.replace('_', ' ')}: {n}" for kind, (n, _) in run.samples.items()]
    if errors:
        lines += ["", "Errors:", "", *errors]
    for kind, (_, samples) in run.samples.items():
        if samples:
            lines += ["", f"### Errors: {kind.replace('_', ' ')}", "", *(_md_sample(sample) for sample in samples)]
    settings = [(_md(key), _md(value)) for key, value in settings_of(run)]
    return [*lines, "", "### Settings and counts", "", *_md_table(("", ""), settings)]


def _md_confusions(run: RunReport) -> list[str]:
    table = confusion_table(run.confusions, max_labels=_MD_LABELS)
    about = "Rows are gold labels, columns answers."
    if OTHERS in table.rows or OTHERS in table.columns:
        about += f" The {_MD_LABELS} labels with most confusions of {table.n_labels}; all of them are in confusion.csv."
    rows = [
        (_md(row), *(str(n) if n else "" for n in counts)) for row, counts in zip(table.rows, table.counts, strict=True)
    ]
    return [about, "", *_md_table(("gold", *map(_md, table.columns)), rows)]


def settings_of(run: RunReport) -> list[tuple[str, str]]:
    """Return what produced a run, as (key, text)."""
    return [
        ("data set", run.info.dataset),
        ("labels", str(len(run.info.labels))),
        ("negative", run.info.negative if run.info.negative is not None else DASH),
        *flatten({key: value for key, value in run.info.settings.items() if key not in _LONG}),
        *flatten(run.info.counts, "counts."),
    ]


def _md_sample(sample: Sample) -> str:
    marks = {"head": ("**[1 ", "]**"), "tail": ("**[2 ", "]**"), "both": ("**[1+2 ", "]**"), "": ("", "")}
    text = "".join(marks[s.role][0] + _md(s.text) + marks[s.role][1] for s in sample.segments)
    gold = _md(", ".join(sample.gold)) or "no relation"
    answer = _md(sample.answer) if sample.answer is not None else "none"
    return f"- {' '.join(text.split())}\n  gold: {gold}; answer: {answer} ({_md(sample.doc)})"


def _result_row(run: RunReport) -> Sequence[str]:
    s = run.scores
    rates = (s.macro_f, s.ceiling, s.candidate_recall, s.false_positive_rate)
    name = _md(run.name) + (f" ({run.part[0]:,} of {run.part[1]:,} texts)" if run.part else "")
    return (name, _num(s.p), _num(s.r), f"**{_num(s.f)}**", _interval(s.interval), *map(_num, rates), str(s.n_pairs))


def _run_json(run: RunReport) -> dict[str, Any]:
    return {
        "name": run.name,
        "threshold": run.threshold,
        "at_thresholds": [asdict(row) for row in run.at],
        "part": run.part,
        "info": asdict(run.info),
        "scores": asdict(run.scores),
        "labels": [asdict(row) for row in run.labels],
        "confusions": [{"gold": g, "answer": a, "n": n} for (g, a), n in sorted(run.confusions.items())],
        "precision_recall": [{"recall": r, "precision": p} for r, p in run.curve],
        "reliability": [{"score": s, "right": r, "n": n} for s, r, n in run.bins],
        "ece": run.ece,
        "errors": {
            kind: {"n": n, "samples": [asdict(sample) for sample in samples]}
            for kind, (n, samples) in run.samples.items()
        },
    }


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(["" if value is None else value for value in row] for row in rows)
    return buffer.getvalue()


def _md_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _md(text: str) -> str:
    """Escape what Markdown, or the HTML that it may hold, would take for markup."""
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", "\0", text)  # inside a word an underscore is no markup
    return text.translate(_ESCAPES)


def _num(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


def _interval(interval: tuple[float, float] | None) -> str:
    return DASH if interval is None else f"{interval[0]:.3f}{DASH}{interval[1]:.3f}"


def _signed(interval: tuple[float, float] | None) -> str:
    return DASH if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}"


def _without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in names}
