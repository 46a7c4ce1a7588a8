"""`evaluate threshold`: thresholds from records of development data."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from spacy_relx.cli._common import Debug, errors_as_messages, stderr
from spacy_relx.cli._tables import figure, make_table, show


def threshold_of_run(
    source: Annotated[Path, typer.Argument(metavar="DEV.jsonl", exists=True, dir_okay=False)],
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE.json", help="Where to write them.")] = None,
    labels_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Write the label set with its thresholds too, for --labels."),
    ] = None,
    per_label: Annotated[
        bool, typer.Option("--per-label/--common", help="A threshold for each label, or one for all.")
    ] = True,
    min_gold: Annotated[int, typer.Option(min=1, help="Least gold relations of a label with its own.")] = 10,
    debug: Debug = False,
) -> None:
    """Find the thresholds with the best micro-F in records of development data.

    A run on test data is refused. Nothing is asked again.
    """
    with errors_as_messages(debug):
        from spacy_relx.evaluation.records import read_records
        from spacy_relx.evaluation.thresholds import find_thresholds

        info, records = read_records(source)
        found = find_thresholds(info, records, per_label=per_label, min_gold=min_gold)
        if out is not None:
            found.write(out)
        if labels_out is not None:
            found.write_schema(labels_out)
        steps = [("none", found.before), ("one for all labels", found.common), ("by label", found.after)]
        rows = [(name, figure(c.p), figure(c.r), figure(c.f)) for name, c in steps[: None if per_label else 2]]
        show(make_table(f"{info.dataset} {info.split}, {info.protocol}", ("thresholds", "P", "R", "F"), rows))
        if found.threshold is None:
            stderr().print("No threshold gives a right answer, so none is set.")
            return
        values = [("all others" if found.labels else "all", figure(found.threshold))]
        values += [(label, figure(value)) for label, value in found.labels.items()]
        show(make_table("", ("label", "threshold"), values))
