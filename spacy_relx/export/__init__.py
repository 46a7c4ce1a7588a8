"""Relations in formats that other programs read: tables, graphs, RDF, Neo4j, and files for annotators."""

from spacy_relx.export.brat_reader import read_brat
from spacy_relx.export.formats import FORMATS, Options
from spacy_relx.export.neo4j import cypher_queries
from spacy_relx.export.networks import to_networkx
from spacy_relx.export.properties import Property, load_properties
from spacy_relx.export.rdf import to_rdf
from spacy_relx.export.triples import Fact, Triple, facts, triples
from spacy_relx.export.write import Summary, export
from spacy_relx.merging import merge_relations

__all__ = [
    "FORMATS",
    "Fact",
    "Options",
    "Property",
    "Summary",
    "Triple",
    "cypher_queries",
    "export",
    "facts",
    "load_properties",
    "merge_relations",
    "read_brat",
    "to_networkx",
    "to_rdf",
    "triples",
]
