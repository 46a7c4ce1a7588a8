"""`evaluate score`: the scores of earlier runs, with thresholds."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from spacy_relx.cli._common import Debug, errors_as_messages
from spacy_relx.cli.evaluate._inputs import decision_of
from spacy_relx.cli.evaluate._outputs import show_labels, show_runs, write_json


def score_runs(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN.jsonl…", exists=True, dir_okay=False)],
    threshold: Annotated[float, typer.Option(min=0.0, max=1.0, help="The lowest score a relation may have.")] = 0.0,
    thresholds: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", exists=True, dir_okay=False, help="What `evaluate threshold` wrote."),
    ] = None,
    no_negative: Annotated[
        bool,
        typer.Option(
            "--without-negative",
            help="Of given pairs that all hold a relation: the best label counts, whatever beats it.",
        ),
    ] = False,
    per_label: Annotated[bool, typer.Option("--per-label", help="Print a table of the labels too.")] = False,
    output: Annotated[Path | None, typer.Option("--json", metavar="FILE.json", help="Write all figures.")] = None,
    rounds: Annotated[int, typer.Option(min=0, help="Resamples of the confidence intervals; 0 for none.")] = 1000,
    debug: Debug = False,
) -> None:
    """Score records of earlier runs; the model is not asked again.

    Each protocol has a table of its own.
    """
    with errors_as_messages(debug):
        from spacy_relx.evaluation.metrics import without_negative
        from spacy_relx.evaluation.records import read_records
        from spacy_relx.evaluation.summary import summarise

        summaries = []
        for path in runs:
            info, records = read_records(path)
            if no_negative:
                records = without_negative(info, records)
            decision = decision_of(threshold, thresholds, info.negative)
            summaries.append((str(path), summarise(info, records, decision, n_rounds=rounds)))
        show_runs(summaries)
        if per_label:
            for name, summary in summaries:
                show_labels(name, summary)
        if output is not None:
            write_json(output, [{"run": name, **summary} for name, summary in summaries])
