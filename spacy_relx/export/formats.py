"""The formats of an export: their names, the files they make, and what each of them is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from spacy_relx.errors import ConfigError
from spacy_relx.schema_config import did_you_mean

if TYPE_CHECKING:
    from spacy_relx.export.properties import Property


class Source(Enum):
    """What a format is written from, and so what has to be in memory at once."""

    ROWS = "rows"
    """A row after another; with `merge`, the facts of the corpus."""
    GRAPH = "graph"
    """The entities and facts of the corpus."""
    DOCS = "docs"
    """A Doc after another."""


@dataclass(frozen=True, slots=True)
class Options:
    """How relations are exported.

    Attributes:
        merge: One row or edge for a fact of the corpus, with counts, the best and the mean score and the best
            evidence, instead of one for every place it was found in. None: tables no, graphs yes.
        by_name: Whether mentions of one name and type are one entity whatever their knowledge-base ids say. Otherwise
            an id wins where there is one.
        symmetric: Labels for which both directions are one fact.
        attr: The extension that holds the relations.
        guard_formulas: In CSV and TSV, put an apostrophe before text that a spreadsheet would run as a formula.
        properties: In RDF, what labels stand for; see `load_properties`.
        base: In RDF, what IRIs begin with where there is none; None for `rdf.BASE`.
        provenance: In RDF, whether scores and evidence are written too.
        overwrite: Whether a folder that is not empty may be written to.
    """

    merge: bool | None = None
    by_name: bool = False
    symmetric: tuple[str, ...] = ()
    attr: str = "relations"
    guard_formulas: bool = False
    properties: dict[str, Property] = field(default_factory=dict)
    base: str | None = None
    provenance: bool = True
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """A format.

    Attributes:
        name: What it is called.
        title: What it is, for help texts.
        suffixes: How names of its files end; () for a folder.
        source: What it is written from.
        is_text: Whether it is text, which may go to standard output.
        needs: The package that writes it, if it is not part of the base install.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    source: Source
    is_text: bool = True
    needs: str | None = None

    def check(self) -> None:
        """Raise an error that says what to install, if something is missing.

        Raises:
            ConfigError: If the package that writes it is not installed.
        """
        if self.needs is not None and find_spec(self.needs) is None:
            raise ConfigError(
                f"The format {self.name} needs {self.needs}, which is not installed. Install it with "
                "`pip install 'spacy-relx[export]'`."
            )


FORMATS = {
    format.name: format
    for format in (
        Format("csv", "table, comma-separated", (".csv",), Source.ROWS),
        Format("tsv", "table, tab-separated", (".tsv",), Source.ROWS),
        Format("jsonl", "table, an object a line", (".jsonl", ".ndjson"), Source.ROWS),
        Format(
            "parquet", "table for pandas, polars, DuckDB", (".parquet",), Source.ROWS, is_text=False, needs="pyarrow"
        ),
        Format("graphml", "graph for yEd, Gephi, Cytoscape, networkx", (".graphml",), Source.GRAPH, needs="networkx"),
        Format("gexf", "graph for Gephi", (".gexf",), Source.GRAPH, needs="networkx"),
        Format("turtle", "RDF, Turtle", (".ttl",), Source.GRAPH, needs="rdflib"),
        Format("json-ld", "RDF, JSON-LD", (".jsonld",), Source.GRAPH, needs="rdflib"),
        Format("nt", "RDF, N-Triples", (".nt",), Source.GRAPH, needs="rdflib"),
        Format("cypher", "script for Neo4j", (".cypher", ".cql"), Source.GRAPH),
        Format("neo4j", "nodes.csv and relationships.csv for neo4j-admin", (), Source.GRAPH, is_text=False),
        Format("brat", "standoff files for brat", (), Source.DOCS, is_text=False),
        Format("conll", "CoNLL-U Plus, a token a line", (".conllup", ".conll"), Source.DOCS),
        Format("docbin", "spaCy's own, to train on", (".spacy",), Source.DOCS, is_text=False),
    )
}


def find_format(output: str, name: str | None) -> Format:
    """Return the format of a name, or else of a file's suffix.

    Raises:
        ConfigError: If there is none.
    """
    if name is not None:
        if name not in FORMATS:
            raise ConfigError(
                f"There is no format {name!r}.{did_you_mean(name, FORMATS)} Expected one of {', '.join(FORMATS)}."
            )
        return FORMATS[name]
    suffix = Path(output).suffix.lower()
    for format in FORMATS.values():
        if suffix in format.suffixes:
            return format
    known = ", ".join(suffix for format in FORMATS.values() for suffix in format.suffixes)
    raise ConfigError(
        f"The output {output!r} does not say its format. Expected a name that ends in {known}; or one of "
        f"{', '.join(FORMATS)} as format (--format)."
    )
