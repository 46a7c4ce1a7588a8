"""The command `convert`: the public files of a data set in, a DocBin with gold entities and relations out."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spacy_relx.cli import _completion
from spacy_relx.cli._common import Debug, Quiet, errors_as_messages, stdout

if TYPE_CHECKING:
    from rich.table import Table

    from spacy_relx.data import Report


class OnError(StrEnum):
    """What a row that cannot be used means for the run."""

    SKIP = "skip"
    RAISE = "raise"


def convert(
    dataset: Annotated[
        str | None,
        typer.Argument(metavar="DATASET", help="Its name; --list shows all.", autocompletion=_completion.datasets),
    ] = None,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="INPUT... OUTPUT.spacy", help="Files in the data set's own format; then what to write."),
    ] = None,
    level: Annotated[
        str | None, typer.Option(metavar="sentence|document", help="What is a Doc (redocred); sentence if left out.")
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(metavar="spaces|underscores", help="How names of several words are written (gids)."),
    ] = None,
    on_error: Annotated[
        OnError, typer.Option(help="A row or relation that cannot be used: skip reports it and goes on, raise stops.")
    ] = OnError.SKIP,
    merge: Annotated[
        bool, typer.Option("--merge", help="One Doc for rows of the same text that follow each other (scierc, tacred).")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="Most Docs; 0 for all.")] = 0,
    lang: Annotated[str, typer.Option(help="Language of the tokeniser, for texts that are not tokenised.")] = "en",
    list_all: Annotated[
        bool, typer.Option("--list", help="Show the data sets with licence, source and sizes.")
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Turn a data set into a .spacy file.

    The Docs have gold entities and relations; the span group "gold" has every mention, also where two overlap. Prints
    what was read, what is in the output, and what is not, with reasons and places.
    """
    with errors_as_messages(debug):
        if list_all:
            _list()
            return
        if dataset is None or not paths or len(paths) < 2:
            raise typer.BadParameter("Expected DATASET INPUT... OUTPUT.spacy; --list shows the data sets.")
        *inputs, output = paths
        if output.suffix != ".spacy":
            raise typer.BadParameter(f"The output {str(output)!r} is of no known kind. Expected a .spacy file.")

        import spacy
        from spacy.tokens import DocBin

        from spacy_relx.data import Report, read_docs
        from spacy_relx.data import dataset as find

        found = find(dataset)
        options = {name: value for name, value in (("level", level), ("names", names)) if value is not None}
        found.check_options(options)
        if output.resolve() in {path.resolve() for path in inputs}:
            raise typer.BadParameter(f"The output {str(output)!r} is an input. Choose another place for it.")
        report = Report()
        nlp = spacy.blank(lang)
        docs = read_docs(
            found, inputs, nlp, on_error=on_error.value, limit=limit, merge=merge, report=report, **options
        )
        corpus = DocBin(docs=docs, store_user_data=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch = output.with_name(f"{output.name}.part")
        corpus.to_disk(scratch)
        scratch.replace(output)
        if not quiet:
            _show(found.title, report)
            stdout().print(str(output))


def _show(title: str, report: Report) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    table = _table(title, "read", "kept", "skipped")
    lost = {what: report.count(what) for what in ("row", "relation", "mention")}
    table.add_row("rows", str(report.n_rows), str(report.n_rows - lost["row"]), str(lost["row"]))
    table.add_row("Docs", "", str(report.n_docs), "")
    table.add_row("mentions", "", str(report.n_mentions), str(lost["mention"]))
    table.add_row("relations", "", str(report.n_relations), str(lost["relation"]))
    table.add_row("negative pairs", "", str(report.n_negatives), "")
    table.add_row("different labels", "", str(len(report.labels)), "")
    console.print(table)
    for what, reason, count, first in report.reasons():
        kind = "noted" if what == "note" else f"skipped {what}s"
        console.print(f"{count} {kind}: {reason}. First: {first.place} {first.detail}".rstrip(), soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    return table


def _list() -> None:
    from spacy_relx.data import DATASETS

    console = stdout()
    for entry in DATASETS.values():
        console.print(f"{entry.name}: {entry.title}")
        console.print(f"  licence: {entry.licence}\n  source: {entry.source}")
        for split in entry.splits:
            relations = f", {split.n_relations} relations" if split.n_relations is not None else ""
            console.print(f"  {split.name} ({Path(split.file).name}): {split.n_rows} rows{relations}")
        for name, choices in entry.options.items():
            console.print(f"  --{name} {'|'.join(choices)}")
        console.print(f"  {entry.note}")
