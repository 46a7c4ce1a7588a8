"""What the commands of `evaluate` show and write: tables of scores, JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spacy_relx.cli._common import stdout
from spacy_relx.cli._tables import figure, make_table, show, with_interval

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def show_runs(summaries: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Print named summaries of runs, a table a protocol, and one for those that were asked in the published way."""
    tables: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name, summary in summaries:
        tables.setdefault(summary["way"], []).append((name, summary))
    columns = (
        "run",
        "data",
        "micro F [95 %]",
        "P",
        "R",
        "macro F",
        "cand. recall",
        "FP rate",
        "ECE",
        "ceiling",
        "strict F",
        "pairs",
    )
    for way, group in tables.items():
        show(make_table(way_title(way), columns, [_row(name, s) for name, s in group], n_text=2))
        for name, summary in group:
            leaks = summary["leaks"]
            if leaks is not None:
                stdout().print(
                    f"{name}: {leaks['n_sentences']} sentences ({leaks['n_pairs']} pairs) are in the training data "
                    f"too, {leaks['n_exact']} of them word for word; micro F {figure(leaks['micro_f'])} with them, "
                    f"{figure(leaks['micro_f_without'])} without."
                )
            if summary["semeval_official_macro_f"] is not None:
                stdout().print(f"{name}: official SemEval macro F {figure(summary['semeval_official_macro_f'], 4)}")


def way_title(way: str) -> str:
    """What a table of runs is called."""
    return "protocol given, asked as published" if way == "published" else f"protocol {way}"


def _row(name: str, summary: dict[str, Any]) -> tuple[str, ...]:
    micro, measured = summary["micro"], summary["calibration"]["equal_width"]
    strict = summary["strict"]
    return (
        name,
        f"{summary['dataset']} {summary['split']}",
        with_interval(micro["f"], summary["intervals"].get("micro_f")),
        figure(micro["p"]),
        figure(micro["r"]),
        figure(summary["macro_f"]),
        figure(summary["candidate_recall"]),
        figure(summary["false_positive_rate"]),
        figure(measured["ece"] if measured is not None else None),
        figure(summary["ceiling"]["f"]),
        figure(strict["f"] if strict is not None else None),
        str(summary["n_asked"]),
    )


def show_labels(name: str, summary: dict[str, Any]) -> None:
    """Print the scores of each label, the most frequent first."""
    rows = [
        (label, figure(c["p"]), figure(c["r"]), figure(c["f"]), str(c["gold"]), str(c["predicted"]))
        for label, c in sorted(summary["per_label"].items(), key=lambda item: -item[1]["gold"])
    ]
    show(make_table(name, ("label", "P", "R", "F", "gold", "predicted"), rows))


def write_json(path: Path, data: Any) -> None:
    """Write plain values as JSON."""
    import json

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
