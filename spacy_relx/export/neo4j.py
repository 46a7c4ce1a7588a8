"""Relations for Neo4j and other property graphs: CSV files for its bulk import, and Cypher.

Nodes have the label `Entity` and their entity type, edges the relation's label as their type. Text from documents can
never become a part of a query: it is a parameter, or a string literal whose quotes and backslashes are escaped.
"""

from __future__ import annotations

import csv
import json
import re
from typing import TYPE_CHECKING, Any, TextIO

from spacy.util import minibatch

from spacy_relx.export.characters import identifier, one_line, printable
from spacy_relx.export.networks import edge_columns, edge_values, node_values
from spacy_relx.export.triples import facts, places

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from spacy_relx.merging import Graph

_ROWS = 500
#: The type of an edge whose label is but white space: there is none without a name.
_NAMELESS = "_"
_TYPES = {str: "", int: ":long", float: ":double"}
_CONSTRAINT = "CREATE CONSTRAINT relx_entity IF NOT EXISTS FOR (n:Entity) REQUIRE n.key IS UNIQUE"
_ESCAPES = str.maketrans({"\\": r"\\", "'": r"\'", "\n": r"\n", "\r": r"\r", "\t": r"\t"})
#: What tells one place of a relation from another.
_PLACE = ("doc", "head_start_char", "tail_start_char")


def write_neo4j_csv(graph: Graph, folder: Path, *, every_mention: bool = False) -> None:
    """Write nodes.csv and relationships.csv with the headers that `neo4j-admin database import full` reads.

    Line breaks in text become spaces, since its reader expects a row a line unless told otherwise.
    """
    with (folder / "nodes.csv").open("w", encoding="utf8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["key:ID", "name", "label", "kb_id", "aliases", "n_mentions:long", ":LABEL"])
        for key, entity in graph.entities.items():
            labels = ";".join(["Entity", *filter(None, [_one_label(entity.label)])])
            writer.writerow([identifier(key, one_line), *map(_cell, node_values(entity).values()), labels])
    with (folder / "relationships.csv").open("w", encoding="utf8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        header = [f"{name}{_TYPES[kind]}" for name, kind in edge_columns(every_mention).items()]
        writer.writerow([":START_ID", ":END_ID", ":TYPE", *header])
        for row, values in edge_values(places(graph) if every_mention else facts(graph)):
            cells = [values[name] for name in edge_columns(every_mention)]
            ends = (identifier(key, one_line) for key in (row.head_id, row.tail_id))
            writer.writerow([*ends, one_line(row.label) or _NAMELESS, *map(_cell, cells)])


def cypher_queries(graph: Graph, *, every_mention: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield queries and their parameters, for a driver: `session.run(query, parameters)`.

    Entities and relations that are there already are brought up to date, so that running them twice changes nothing.
    """
    yield _CONSTRAINT, {}
    by_label: dict[str, list[dict[str, Any]]] = {}
    for key, entity in graph.entities.items():
        values = {name: _clean(value) for name, value in node_values(entity).items()}
        by_label.setdefault(entity.label, []).append({"key": identifier(key, printable), "values": values})
    for label, nodes in by_label.items():
        name = f" SET n:{_quoted(label)}" if one_line(label) else ""
        for rows in minibatch(nodes, _ROWS):
            yield f"UNWIND $rows AS row MERGE (n:Entity {{key: row.key}}) SET n += row.values{name}", {"rows": rows}
    place = f" {{{', '.join(f'{name}: row.values.{name}' for name in _PLACE)}}}" if every_mention else ""
    by_type: dict[str, list[dict[str, Any]]] = {}
    for row, found in edge_values(places(graph) if every_mention else facts(graph)):
        values = {name: _clean(value) for name, value in found.items()}
        ends = {"head": identifier(row.head_id, printable), "tail": identifier(row.tail_id, printable)}
        by_type.setdefault(row.label, []).append({**ends, "values": values})
    for label, edges in by_type.items():
        for rows in minibatch(edges, _ROWS):
            yield (
                "UNWIND $rows AS row MATCH (h:Entity {key: row.head}) MATCH (t:Entity {key: row.tail}) "
                f"MERGE (h)-[r:{_quoted(label)}{place}]->(t) SET r += row.values",
                {"rows": rows},
            )


def write_cypher(graph: Graph, file: TextIO, *, every_mention: bool = False) -> None:
    """Write the queries as a script for `cypher-shell`, with the parameters as literals, a row a line."""
    for query, parameters in cypher_queries(graph, every_mention=every_mention):
        rows = ",\n  ".join(literal(row) for row in parameters.get("rows", []))
        before, mark, after = query.partition("$rows")
        file.write(f"{before}[\n  {rows}\n]{after};\n" if mark else f"{query};\n")


def literal(value: Any) -> str:
    """Return a string, number or map as Cypher has it."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {literal(item)}' for name, item in value.items())}}}"
    if not isinstance(value, str):
        return json.dumps(value)
    # Some versions of Neo4j turn \uXXXX into its character before they look for quotes, however the backslash is
    # escaped. So no backslash is ever followed by a u: there the literal ends, and another one goes on.
    parts = re.split(r"(?<=\\)(?=u)", value)
    return " + ".join(f"'{part.translate(_ESCAPES)}'" for part in parts)


def _quoted(name: str) -> str:
    """Return a label or type between backticks. Not every reader can escape what ends it, so none of that stays."""
    return "`" + (one_line(name).replace("\\", "/").replace("`", "'") or _NAMELESS) + "`"


def _one_label(label: str) -> str:
    return one_line(label).replace(";", ",")


def _cell(value: Any) -> Any:
    return one_line(value) if isinstance(value, str) else value


def _clean(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value
