"""The command `view`: a picture of documents that have relations, or of their relations as one graph."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from spacy_relx.cli._common import Debug, errors_as_messages, stderr, stdout

if TYPE_CHECKING:
    from spacy.tokens import Doc

DOCS_SHOWN = 50
"""Documents on a page of documents, if nothing else is asked for."""


def view(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="A .spacy file (DocBin) with relations, the .jsonl of annotate, or - for its lines on standard input.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Argument(metavar="[OUTPUT.html]", help="Where to write the page; beside INPUT if left out.")
    ] = None,
    as_graph: Annotated[
        bool, typer.Option("--graph", help="One graph of what all documents say, to search, filter and drag.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", min=0, help="Documents to read; 0 for all.", show_default="50, and all for --graph"
        ),
    ] = None,
    max_relations: Annotated[
        int, typer.Option(min=1, help="Relations in the graph: those found in most places, if there are more.")
    ] = 1000,
    min_score: Annotated[float, typer.Option(min=0.0, max=1.0, help="Leave out relations with a lower score.")] = 0.0,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", help="Show this relation only; may be given more than once.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    debug: Debug = False,
) -> None:
    """Draw documents that have relations.

    The page shows entities in the text, relations as arcs, and a table of the relations. With --graph, mentions of one
    name and type are one node, and an edge shows the sentences it came from. The page needs no network.
    """
    with errors_as_messages(debug):
        from itertools import islice

        from spacy_relx import view as picture
        from spacy_relx._annotated import read_annotated

        if output is None and str(source) == "-":
            raise typer.BadParameter("Standard input has no name for the page to take. Expected OUTPUT.html, too.")
        path = output or source.with_suffix(".html")
        title = (path if str(source) == "-" else source).stem
        if path.suffix not in (".html", ".htm"):
            raise typer.BadParameter(f"{str(path)!r} is no page. Expected a name that ends in .html.")
        if limit is None:
            limit = 0 if as_graph else DOCS_SHOWN
        stream = read_annotated(source)
        docs = islice(stream, limit or None)
        if as_graph:
            picture.save_graph(docs, path, min_score=min_score, labels=label, max_relations=max_relations, title=title)
        else:
            picture.save(map(_titled, docs), path, min_score=min_score, labels=label)
        if next(stream, None) is not None:
            shown = f"{limit} documents are" if limit > 1 else "1 document is"
            stderr().print(f"Only the first {shown} shown; --limit 0 shows all.")
        stdout().print(str(path))
        if open_page:
            typer.launch(path.resolve().as_uri())


def _titled(doc: Doc) -> Doc:
    """Give a Doc its id for a heading if it has no other."""
    from spacy_relx.data.docs import doc_id

    if (name := doc_id(doc)) is not None:
        doc.user_data.setdefault("title", name)
    return doc
