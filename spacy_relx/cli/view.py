"""The command `view`: a picture of documents that have relations."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from spacy_relx.cli._common import Debug, errors_as_messages, stderr, stdout


def view(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A .spacy file (DocBin) with relations, or the .jsonl of annotate.")
    ],
    output: Annotated[
        Path | None, typer.Argument(metavar="[OUTPUT.html]", help="Where to write the page; beside INPUT if left out.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="Documents to show; 0 for all.")] = 50,
    min_score: Annotated[float, typer.Option(min=0.0, max=1.0, help="Leave out relations with a lower score.")] = 0.0,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", help="Show this relation only; may be given more than once.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    debug: Debug = False,
) -> None:
    """Draw documents that have relations.

    The page shows entities in the text, relations as arcs, and a table of the relations. It needs no network.
    """
    with errors_as_messages(debug):
        from itertools import islice

        from spacy_relx import view as picture
        from spacy_relx._annotated import read_annotated
        from spacy_relx.data.docs import doc_id

        path = output or source.with_suffix(".html")
        if path.suffix not in (".html", ".htm"):
            raise typer.BadParameter(f"{str(path)!r} is no page. Expected a name that ends in .html.")
        stream = read_annotated(source)
        docs = list(islice(stream, limit or None))
        is_cut = next(stream, None) is not None
        for doc in docs:
            if (name := doc_id(doc)) is not None:
                doc.user_data.setdefault("title", name)
        picture.save(docs, path, min_score=min_score, labels=label)
        if is_cut:
            stderr().print(f"Only the first {len(docs)} documents are shown; --limit 0 shows all.")
        stdout().print(str(path))
        if open_page:
            typer.launch(path.resolve().as_uri())
