"""Relations as a networkx graph, and as the graph files that networkx writes: GraphML and GEXF."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, BinaryIO

from spacy_relx.export.characters import identifier, printable
from spacy_relx.export.triples import Fact, Triple, columns, facts, places

if TYPE_CHECKING:
    from collections.abc import Iterable

    import networkx as nx

    from spacy_relx.merging import Entity, Graph

#: What the ends of an edge say already.
_OF_NODES = {f"{side}{part}" for side in ("head", "tail") for part in ("", "_label", "_id", "_kb_id")}
ALIAS_SEPARATOR = " | "


def to_networkx(graph: Graph, *, every_mention: bool = False) -> nx.MultiDiGraph:
    """Return the entities and relations of a corpus as a graph.

    Nodes are the entities' keys, with `name`, `label`, `kb_id`, `aliases` and `n_mentions`. Edges go from head to tail
    and carry the columns of a `Fact` (`label`, `score`, `mean_score`, `count`, `doc`, `sentence`, …) and an `id`; their
    key is the label.

    Args:
        graph: What `merge_relations` returns.
        every_mention: An edge for every place that the graph has kept, with the columns of a `Triple`, instead of one
            for every fact. Keys are then numbers.
    """
    import networkx as nx

    made = nx.MultiDiGraph()
    for key, entity in graph.entities.items():
        made.add_node(key, **node_values(entity))
    for number, (edge, values) in enumerate(edge_values(places(graph) if every_mention else facts(graph)), 1):
        edge_key = None if every_mention else edge.label
        made.add_edge(edge.head_id, edge.tail_id, edge_key, id=f"r{number}", **values)
    return made


def write_graphml(graph: Graph, file: BinaryIO, *, every_mention: bool = False) -> None:
    """Write GraphML, which yEd, Gephi, Cytoscape and igraph read; control characters are replaced."""
    import networkx as nx

    nx.write_graphml_xml(_printable(to_networkx(graph, every_mention=every_mention)), file, edge_id_from_attribute="id")


def write_gexf(graph: Graph, file: BinaryIO, *, every_mention: bool = False) -> None:
    """Write GEXF, Gephi's own format: what Gephi shows at a node is the entity's name, and its type is in `type`."""
    import networkx as nx

    made = _printable(to_networkx(graph, every_mention=every_mention))
    for _, values in made.nodes(data=True):
        values["type"], values["label"] = values["label"], values["name"]
    nx.write_gexf(made, file)


def node_values(entity: Entity) -> dict[str, Any]:
    """Return what a graph says of an entity beside its key."""
    return {
        "name": entity.name,
        "label": entity.label,
        "kb_id": entity.kb_id,
        "aliases": ALIAS_SEPARATOR.join(entity.names[1:]),
        "n_mentions": entity.n_mentions,
    }


def edge_values(rows: Iterable[Triple]) -> Iterable[tuple[Triple, dict[str, Any]]]:
    """Yield each row with what is to be said of it on an edge."""
    for row in rows:
        yield row, {name: value for name, value in asdict(row).items() if name not in _OF_NODES}


def edge_columns(every_mention: bool) -> dict[str, type]:
    """Return the names and types of what `edge_values` gives."""
    row_type = Triple if every_mention else Fact
    return {name: kind for name, kind in columns(row_type).items() if name not in _OF_NODES}


def _printable(graph: nx.MultiDiGraph) -> nx.MultiDiGraph:
    """Return a graph whose text XML can hold."""
    import networkx as nx

    def clean(values: dict[str, Any]) -> dict[str, Any]:
        return {key: printable(value) if isinstance(value, str) else value for key, value in values.items()}

    made = nx.MultiDiGraph()
    made.add_nodes_from((identifier(key, printable), clean(values)) for key, values in graph.nodes(data=True))
    made.add_edges_from(
        (*(identifier(str(name), printable) for name in (head, tail, key)), clean(values))
        for head, tail, key, values in graph.edges(keys=True, data=True)
    )
    return made
