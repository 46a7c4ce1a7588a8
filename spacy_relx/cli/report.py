"""The command `report`: tables and pictures from the records of evaluation runs."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from spacy_relx.cli._common import Debug, Quiet, errors_as_messages, stderr, stdout


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN.jsonl...", help="Files that evaluate or baseline wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the report is written.")],
    title: Annotated[str, typer.Option(help="The heading of the report.")] = "Relation extraction report",
    threshold: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Count answers with a lower score as none, in every run.")
    ] = None,
    thresholds: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.json",
            help="Thresholds that were found on development data, for runs of that data set, protocol and model: these "
            "get a table with no threshold, the pipeline's own and the best ones. May be given more than once.",
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=0, help="Errors of each kind to show; 0 keeps all texts out of the report.")
    ] = 8,
    rounds: Annotated[
        int, typer.Option(min=1, help="Bootstrap resamples of the intervals; comparisons take ten times as many.")
    ] = 1000,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of the intervals.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn at random.")] = 0,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw pictures; needs the extra viz.")] = True,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a report of evaluation runs.

    FOLDER gets report.html, one page that needs no network, and the same as report.md, report.json, results.csv,
    labels.csv, thresholds.csv and confusion.csv. Runs of the same data set, split and protocol are compared with each
    other. Figures marked as published are those of other people, for the same question; nothing of them is computed
    here.
    """
    with errors_as_messages(debug):
        from spacy_relx.evaluation.thresholds import StoredThresholds
        from spacy_relx.report import Options, make_report, write_report
        from spacy_relx.report.plots import check_matplotlib

        if plots:
            check_matplotlib()
        options = Options(
            title=title,
            threshold=threshold,
            thresholds=tuple(map(StoredThresholds.read, thresholds or ())),
            n_samples=samples,
            n_rounds=rounds,
            n_test_rounds=10 * rounds,
            confidence=confidence,
            seed=seed,
        )
        made = make_report(runs, options)
        files = write_report(made, out, with_plots=plots)
        if not quiet:
            for note in made.notes:
                stderr().print(note)
        stdout().print(str(files[0]))
        if open_page:
            typer.launch(files[0].resolve().as_uri())
