"""`evaluate compare`: whether two runs differ by more than chance."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from spacy_relx.cli._common import Debug, errors_as_messages
from spacy_relx.cli._tables import figure, make_table, show, with_interval
from spacy_relx.cli.evaluate._inputs import decision_of
from spacy_relx.cli.evaluate._outputs import write_json


def compare_runs(
    first: Annotated[Path, typer.Argument(metavar="A.jsonl", exists=True, dir_okay=False)],
    second: Annotated[Path, typer.Argument(metavar="B.jsonl", exists=True, dir_okay=False)],
    threshold: Annotated[float, typer.Option(min=0.0, max=1.0, help="The lowest score a relation may have.")] = 0.0,
    rounds: Annotated[int, typer.Option(min=1, help="Resamples, and random swaps.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the random numbers.")] = 0,
    output: Annotated[Path | None, typer.Option("--json", metavar="FILE.json", help="Write all figures.")] = None,
    debug: Debug = False,
) -> None:
    """Test whether two runs on the same documents differ.

    The interval is a paired bootstrap over documents, the p-value approximate randomisation over documents.
    """
    with errors_as_messages(debug):
        from spacy_relx.errors import DataError
        from spacy_relx.evaluation.bootstrap import compare
        from spacy_relx.evaluation.metrics import tally_documents
        from spacy_relx.evaluation.records import read_records

        runs = [read_records(path) for path in (first, second)]
        (a, _), (b, _) = runs
        if (a.dataset, a.split, a.protocol) != (b.dataset, b.split, b.protocol):
            raise DataError(
                f"{first} is {a.dataset} {a.split} under {a.protocol}, and {second} is {b.dataset} {b.split} under "
                f"{b.protocol}. Expected two runs of one task."
            )
        tallies = [
            tally_documents(info, records, decision_of(threshold, None, info.negative)) for info, records in runs
        ]
        result = compare(*tallies, n_rounds=rounds, seed=seed)
        difference = result.difference
        # The same pairs may be asked about in two ways, which is worth a test, but has to be seen.
        ways = [" (asked as published)" if info.way == "published" else "" for info in (a, b)]
        rows = [
            (f"{first}{ways[0]}", figure(result.first)),
            (f"{second}{ways[1]}", figure(result.second)),
            ("difference", with_interval(difference.value, difference.to_dict())),
            ("p", figure(result.p_value, 4)),
        ]
        title = f"{a.dataset} {a.split}, {a.protocol}: micro-F on {result.n_docs} documents"
        show(make_table(title, ("run", "F [95 %]"), rows))
        if output is not None:
            write_json(output, {"runs": [str(first), str(second)], **result.to_dict()})
