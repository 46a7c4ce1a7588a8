"""An export from its Docs to its file, folder or standard output; each format's own code is in its module."""

from __future__ import annotations

import io
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from spacy.tokens import Doc, DocBin

from spacy_relx.data.docs import doc_id
from spacy_relx.errors import DataError
from spacy_relx.export.formats import Format, Options, Source, find_format
from spacy_relx.export.triples import Fact, Triple, facts, triples
from spacy_relx.merging import entity_key, merge_relations, name_key
from spacy_relx.relation import register

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from spacy_relx.merging import Graph

STDOUT = "-"


@dataclass(frozen=True, slots=True)
class Summary:
    """What an export has.

    Attributes:
        n_docs: Docs read.
        n_relations: Relations, facts or edges written.
        n_entities: Entities written, where they are written by themselves; else None.
        n_loops: Relations left out of facts because both ends turned out to be one entity.
    """

    n_docs: int
    n_relations: int
    n_entities: int | None = None
    n_loops: int = 0


def export(
    docs: Doc | Iterable[Doc],
    output: str | Path,
    format: str | None = None,
    *,
    options: Options | None = None,
    progress: Callable[[int], None] | None = None,
) -> Summary:
    """Write the relations of Docs in a format that other programs read.

    Docs may come as a stream. Tables, brat and CoNLL hold one Doc at a time; graphs hold the entities and facts of the
    corpus. A file appears when it is complete.

    Args:
        docs: A Doc or Docs with relations.
        output: A file, a folder for `neo4j` and `brat`, or "-" for standard output where the format is text.
        format: One of `FORMATS`; None for what the file's suffix says.
        options: How; None for the defaults.
        progress: Called with the number of Docs read so far.

    Raises:
        ConfigError: If there is no such format, or it needs a package that is not installed.
        DataError: If something else than a Doc is given, or the output cannot be written to.
    """
    options = options or Options()
    chosen = find_format(str(output), format)
    chosen.check()
    register(options.attr)
    read = _Read([docs] if isinstance(docs, Doc) else docs, options.attr, progress)
    if not chosen.suffixes:
        if str(output) == STDOUT:
            raise DataError(f"The format {chosen.name} is a folder. Expected its name, not standard output.")
        with _folder(Path(output).resolve(), options.overwrite) as folder:
            written = _to_folder(read, chosen, options, folder)
    else:
        if str(output) == STDOUT and not chosen.is_text:
            raise DataError(f"The format {chosen.name} is not text. Expected the name of a file, not standard output.")
        with _file(str(output)) as file:
            written = _to_file(read, chosen, options, file)
    return written or Summary(read.n_docs, read.n_relations)


class _Read:
    """Docs on their way, counted."""

    def __init__(self, docs: Iterable[Doc], attr: str, progress: Callable[[int], None] | None) -> None:
        self.docs, self.attr, self.progress = docs, attr, progress
        self.n_docs = self.n_relations = 0

    def __iter__(self) -> Iterator[Doc]:
        for doc in self.docs:
            if not isinstance(doc, Doc):
                raise DataError(f"{doc!r} cannot be exported. Expected a spaCy Doc or an iterable of Docs.")
            yield doc
            self.n_docs += 1
            self.n_relations += len(getattr(doc._, self.attr))
            if self.progress is not None:
                self.progress(self.n_docs)


def _to_folder(docs: _Read, format: Format, options: Options, folder: Path) -> Summary | None:
    if format.source is Source.GRAPH:
        from spacy_relx.export.neo4j import write_neo4j_csv

        graph = _graph(docs, options)
        write_neo4j_csv(graph, folder, every_mention=options.merge is False)
        return _summary(graph, options)

    from spacy_relx.export.brat import write_brat

    write_brat(docs, folder, attr=options.attr)
    return None


def _to_file(docs: _Read, format: Format, options: Options, file: BinaryIO) -> Summary | None:
    if format.source is Source.ROWS:
        if options.merge:
            graph = _graph(docs, options)
            _write_rows(facts(graph), Fact, format, options, file)
            return replace(_summary(graph, options), n_entities=None)
        key = name_key if options.by_name else entity_key
        _write_rows(triples(docs, attr=options.attr, key=key), Triple, format, options, file)
    elif format.source is Source.GRAPH:
        graph = _graph(docs, options)
        _write_graph(graph, format, options, file)
        return _summary(graph, options)
    elif format.name == "docbin":
        file.write(_docbin(docs).to_bytes())
    else:
        from spacy_relx.export.conll import write_conll

        with _text(file) as lines:
            write_conll(docs, lines, attr=options.attr)
    return None


def _docbin(docs: Iterable[Doc]) -> DocBin:
    made = DocBin(store_user_data=True)
    for number, doc in enumerate(docs, 1):
        try:
            made.add(doc)
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"Document {number} (id {doc_id(doc)!r}) cannot be kept in a DocBin: {error}. Expected an id and "
                "metadata of plain values: text that UTF-8 can hold, numbers of 64 bits, lists and objects of them."
            ) from error
    return made


def _write_rows(
    rows: Iterable[Triple], row_type: type[Triple], format: Format, options: Options, file: BinaryIO
) -> None:
    from spacy_relx.export.tables import write_csv, write_jsonl, write_parquet

    if format.name == "parquet":
        write_parquet(rows, row_type, file)
        return
    with _text(file) as lines:
        if format.name == "jsonl":
            write_jsonl(rows, row_type, lines)
        else:
            delimiter = "\t" if format.name == "tsv" else ","
            write_csv(rows, row_type, lines, delimiter=delimiter, guard_formulas=options.guard_formulas)


def _write_graph(graph: Graph, format: Format, options: Options, file: BinaryIO) -> None:
    every_mention = options.merge is False
    if format.name in ("graphml", "gexf"):
        from spacy_relx.export.networks import write_gexf, write_graphml

        (write_graphml if format.name == "graphml" else write_gexf)(graph, file, every_mention=every_mention)
    elif format.name == "cypher":
        from spacy_relx.export.neo4j import write_cypher

        with _text(file) as lines:
            write_cypher(graph, lines, every_mention=every_mention)
    else:
        from spacy_relx.export.rdf import BASE, to_rdf

        made = to_rdf(
            graph,
            properties=options.properties,
            base=BASE if options.base is None else options.base,
            provenance=options.provenance,
            every_mention=every_mention,
        )
        if format.name == "json-ld":
            made.serialize(file, format="json-ld", encoding="utf-8", auto_compact=True)
        else:
            made.serialize(file, format=format.name, encoding="utf-8")


def _graph(docs: _Read, options: Options) -> Graph:
    return merge_relations(
        docs,
        attr=options.attr,
        key=name_key if options.by_name else entity_key,
        symmetric=options.symmetric,
        max_evidence=sys.maxsize if options.merge is False else 1,
    )


def _summary(graph: Graph, options: Options) -> Summary:
    relations = graph.relations
    n_edges = sum(relation.n for relation in relations) if options.merge is False else len(relations)
    return Summary(graph.n_docs, n_edges, len(graph.entities), graph.n_loops)


@contextmanager
def _text(file: BinaryIO) -> Iterator[TextIO]:
    lines = io.TextIOWrapper(file, encoding="utf8", newline="")
    try:
        yield lines
        lines.flush()
    finally:
        lines.detach()


@contextmanager
def _file(output: str) -> Iterator[BinaryIO]:
    """Open a file that takes the place of an older one when it is complete, or standard output."""
    if output == STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.part")
    try:
        with scratch.open("wb") as file:
            yield file
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def _folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Make a folder whose files appear when all of them are complete."""
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not overwrite)):
        raise DataError(
            f"The output {str(folder)!r} is there already. Choose another, or replace the files of these names in it "
            "with --overwrite (Options(overwrite=True))."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside it, on the same disk, under a name that nobody else has.
    with tempfile.TemporaryDirectory(prefix=".spacy-relx-", dir=folder.parent) as scratch:
        yield Path(scratch)
        folder.mkdir(exist_ok=True)
        for path in Path(scratch).iterdir():
            path.replace(folder / path.name)
