"""Relations as RDF, through rdflib: what holds between which entities, and where it was read.

A fact is a plain triple. Beside it stands a statement (`rdf:Statement`, which every RDF tool understands) with its
score, its counts and its best evidence, in the vocabulary `VOCABULARY`.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from spacy_relx.errors import ConfigError
from spacy_relx.export.characters import encodable, printable
from spacy_relx.export.networks import edge_values
from spacy_relx.export.properties import PREFIXES, Property
from spacy_relx.export.triples import facts, places

if TYPE_CHECKING:
    from collections.abc import Mapping

    import rdflib

    from spacy_relx.export.triples import Triple
    from spacy_relx.merging import Entity, Graph

#: What entities, types and labels without an IRI of their own begin with.
BASE = "urn:spacy-relx:"
#: Properties of statements and entities: score, count, sentence, …
VOCABULARY = "urn:spacy-relx:vocabulary/"
_ITEM = "http://www.wikidata.org/entity/"
_IS_ITEM = re.compile(r"[QL][1-9]\d*")
_IRI = re.compile(r"https?://[^\x00-\x20<>\"{}|\\^`]+")


def to_rdf(
    graph: Graph,
    *,
    properties: Mapping[str, Property] | None = None,
    base: str = BASE,
    provenance: bool = True,
    every_mention: bool = False,
) -> rdflib.Graph:
    """Return the entities and relations of a corpus as RDF.

    An entity has a name (`rdfs:label`), its other names (`skos:altLabel`) and a type. One that is linked to Wikidata,
    or to an IRI, is that; any other is made of `base` and its key. A label is its property, or made of `base` and its
    name. The same corpus gives the same IRIs, so that graphs can be joined.

    Args:
        graph: What `merge_relations` returns.
        properties: What labels stand for, see `load_properties`.
        base: What IRIs begin with where there is none.
        provenance: Whether to add statements with scores and evidence.
        every_mention: A statement for every place that the graph has kept, instead of one for every fact.

    Raises:
        ConfigError: If `base` cannot begin an IRI.
    """
    import rdflib
    from rdflib.namespace import OWL, RDF, RDFS, SKOS

    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:[^\x00-\x20<>\"{}|\\^`]*", base):
        raise ConfigError(f"The base IRI is {base!r}. Expected one such as https://example.org/graph/.")
    properties = properties or {}
    made = rdflib.Graph(bind_namespaces="none")
    for prefix, namespace in _namespaces(base, properties).items():
        made.bind(prefix, namespace)
    nodes = {key: rdflib.URIRef(_entity_iri(entity, base)) for key, entity in graph.entities.items()}
    for key, entity in graph.entities.items():
        for name, predicate in zip(entity.names, [RDFS.label, *[SKOS.altLabel] * len(entity.names)], strict=False):
            made.add((nodes[key], predicate, rdflib.Literal(printable(name))))
        if entity.label:
            made.add((nodes[key], RDF.type, rdflib.URIRef(f"{base}type/{_segment(entity.label)}")))
    for row, values in edge_values(places(graph) if every_mention else facts(graph)):
        known = properties.get(row.label) or Property(f"{base}relation/{_segment(row.label)}")
        predicate = rdflib.URIRef(known.iri)
        ends = (nodes[row.head_id], nodes[row.tail_id])
        subject, obj = ends[::-1] if known.is_reversed else ends
        made.add((subject, predicate, obj))
        if row.label not in properties:
            made.add((predicate, RDFS.label, rdflib.Literal(printable(row.label))))
            if row.inverse_label and row.inverse_label not in properties:
                inverse = rdflib.URIRef(f"{base}relation/{_segment(row.inverse_label)}")
                made.add((predicate, OWL.inverseOf, inverse))
                made.add((inverse, RDFS.label, rdflib.Literal(printable(row.inverse_label))))
        if provenance:
            statement = rdflib.URIRef(f"{base}statement/{_digest(row)}")
            made.add((statement, RDF.type, RDF.Statement))
            made.add((statement, RDF.subject, subject))
            made.add((statement, RDF.predicate, predicate))
            made.add((statement, RDF.object, obj))
            for name, value in values.items():
                if value != "":
                    literal = rdflib.Literal(printable(value) if isinstance(value, str) else value)
                    made.add((statement, rdflib.URIRef(VOCABULARY + name), literal))
    return made


def _namespaces(base: str, properties: Mapping[str, Property]) -> dict[str, str]:
    """Return the prefixes that make the result shorter to read."""
    from rdflib.namespace import RDF, RDFS, SKOS

    iris = [known.iri for known in properties.values()]
    used = {name: start for name, start in PREFIXES.items() if any(iri.startswith(start) for iri in iris)}
    own = {"relx": VOCABULARY, "relation": f"{base}relation/", "type": f"{base}type/", "wd": _ITEM}
    return {"rdf": str(RDF), "rdfs": str(RDFS), "skos": str(SKOS), **own, **used}


def _entity_iri(entity: Entity, base: str) -> str:
    if _IS_ITEM.fullmatch(entity.kb_id):
        return _ITEM + entity.kb_id
    if _IRI.fullmatch(entity.kb_id):
        return entity.kb_id
    if entity.kb_id:
        return f"{base}kb/{_segment(entity.kb_id)}"
    return f"{base}entity/" + "/".join(_segment(part) or "-" for part in entity.key.split(":", 1))


def _segment(text: str) -> str:
    """Return text as a part of an IRI: letters and digits of any script as they are, all else percent-encoded."""
    return re.sub(r"[^\w.~-]", lambda match: quote(encodable(match[0]), safe=""), text)


def _digest(row: Triple) -> str:
    """Tell this row from others; counts and scores are not part of it."""
    place = (row.head_id, row.label, row.tail_id, row.doc, row.head_start_char, row.tail_start_char)
    return hashlib.sha256(repr(place).encode("utf8", "backslashreplace")).hexdigest()[:20]
