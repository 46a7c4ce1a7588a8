"""The command `export`: relations in formats that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spacy_relx.cli import _completion
from spacy_relx.cli._common import Debug, Quiet, counted, errors_as_messages, stderr, stdout
from spacy_relx.cli._progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spacy.tokens import Doc

    from spacy_relx.export import Summary

STDIN = "-"


def export(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="INPUT",
            help="A .spacy file (DocBin) with relations, the .jsonl of annotate, - for its lines on standard input, or "
            "a folder of brat files.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Argument(metavar="OUTPUT", help="A file, a folder, or - for standard output, which takes --format."),
    ] = None,
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            metavar="NAME",
            help="Left out: what OUTPUT ends in. --list shows all.",
            autocompletion=_completion.formats,
        ),
    ] = None,
    merge: Annotated[
        bool | None,
        typer.Option(
            "--merge/--every-mention",
            help="One row or edge for each fact, with counts, the mean score and the best evidence, or one for every "
            "place it was found in. Left out: facts in graphs, places in tables.",
        ),
    ] = None,
    by_name: Annotated[
        bool,
        typer.Option("--by-name", help="Mentions of one name and type are one entity, whatever a linker says of them."),
    ] = False,
    symmetric: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL", help="Both directions of this label are one fact; can be given often."),
    ] = None,
    min_score: Annotated[float, typer.Option(min=0.0, max=1.0, help="Leave out relations with a lower score.")] = 0.0,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", help="This relation only; can be given often.")
    ] = None,
    properties: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.json",
            autocompletion=_completion.properties,
            help="RDF: the properties that labels stand for: Wikidata's for general, redocred, fewrel, wiki80 or "
            'rebel, or those of a file such as {"born_in": "wdt:P19"}.',
        ),
    ] = None,
    base_iri: Annotated[
        str | None, typer.Option(metavar="IRI", help="RDF: what IRIs of entities and labels begin with.")
    ] = None,
    provenance: Annotated[
        bool, typer.Option("--provenance/--no-provenance", help="RDF: scores and evidence beside the plain triples.")
    ] = True,
    guard_formulas: Annotated[
        bool,
        typer.Option("--guard-formulas", help="CSV, TSV: put ' before text that a spreadsheet would run as a formula."),
    ] = False,
    attr: Annotated[str, typer.Option(help="The extension that holds the relations in a .spacy file.")] = "relations",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write to a folder that is not empty.")] = False,
    list_all: Annotated[bool, typer.Option("--list", help="Show the formats.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write relations for other programs.

    As a table, a graph, RDF, for Neo4j, or for annotators; --list shows the formats.
    Mentions become one entity in graphs, and with --merge: by the id of a knowledge base where they have one, else by
    name and type. An OUTPUT file appears when it is complete. brat files that people corrected can be INPUT again:
    export FOLDER gold.spacy.
    """
    with errors_as_messages(debug):
        if list_all:
            _list()
            return
        if source is None or output is None:
            raise typer.BadParameter("Expected INPUT OUTPUT; --list shows the formats.")

        from spacy_relx.export import Options, load_properties
        from spacy_relx.export import export as write
        from spacy_relx.relation import register

        if output != STDIN and Path(source).resolve() == Path(output).resolve():
            raise typer.BadParameter(f"The output {output!r} is the input. Choose another place for it.")
        options = Options(
            merge=merge,
            by_name=by_name,
            symmetric=tuple(symmetric or ()),
            attr=attr,
            guard_formulas=guard_formulas,
            properties=load_properties(properties) if properties is not None else {},
            base=base_iri,
            provenance=provenance,
            overwrite=overwrite,
        )
        register(attr)
        docs = _chosen(_read(source), attr, min_score, set(label or ()))
        with progress("Exporting", "docs", lambda: _count(source), quiet) as show:
            summary = write(docs, output, format_name, options=options, progress=show)
        if not quiet:
            stderr().print(f"{_told(summary)} in {'standard output' if output == STDIN else output}.")
            if summary.n_loops:
                stderr().print(f"{counted(summary.n_loops, 'relation')} left out: both ends are one entity.")


def _read(source: str) -> Iterator[Doc]:
    if source != STDIN and Path(source).is_dir():
        from spacy_relx.export import read_brat

        return read_brat(source)

    from spacy_relx._annotated import read_annotated

    return read_annotated(source)


def _count(source: str) -> int | None:
    """Return how many documents there are, if that is quick to know."""
    path = Path(source)
    if path.is_dir():
        return sum(1 for _ in path.glob("*.ann"))

    from spacy_relx.corpus import Source

    return Source(source).count() if path.suffix == ".jsonl" else None


def _chosen(docs: Iterator[Doc], attr: str, min_score: float, labels: set[str]) -> Iterator[Doc]:
    for doc in docs:
        relations = getattr(doc._, attr)
        kept = [r for r in relations if r.score >= min_score and (not labels or r.label in labels)]
        if len(kept) < len(relations):
            setattr(doc._, attr, kept)
        yield doc


def _told(summary: Summary) -> str:
    entities = "" if summary.n_entities is None else f" between {summary.n_entities} entities"
    return f"{counted(summary.n_relations, 'relation')}{entities} of {counted(summary.n_docs, 'document')}"


def _list() -> None:
    from spacy_relx.export import FORMATS

    for format in FORMATS.values():
        ending = ", ".join(format.suffixes) or "a folder"
        stdout().print(f"{format.name:<8}  {ending:<17}  {format.title}")
