import io
import json

import pytest
import rdflib
from exported import HOSTILE, annotate, corpus, docs, hostile
from hypothesis import given, settings
from rdflib.compare import isomorphic
from rdflib.namespace import OWL, RDF, RDFS

from spacy_relx.errors import ConfigError
from spacy_relx.export import Options, export, load_properties, merge_relations, to_rdf
from spacy_relx.export.characters import printable
from spacy_relx.export.properties import Property, mapped_schemas
from spacy_relx.export.rdf import VOCABULARY
from spacy_relx.schema import make_schema

WD = rdflib.Namespace("http://www.wikidata.org/entity/")
WDT = rdflib.Namespace("http://www.wikidata.org/prop/direct/")
RELX = rdflib.Namespace(VOCABULARY)
CURIE = rdflib.URIRef("urn:spacy-relx:entity/PERSON/marie%20curie")


def test_a_fact_is_a_triple_and_a_statement():
    graph = to_rdf(merge_relations(corpus()), properties=load_properties("general"))
    assert (CURIE, WDT.P19, WD.Q270) in graph
    assert {str(name) for name in graph.objects(CURIE, RDFS.label)} == {"Marie Curie"}
    (statement,) = graph.subjects(RDF.object, WD.Q270)
    assert (statement, RDF.type, RDF.Statement) in graph
    assert (statement, RDF.subject, CURIE) in graph
    assert (statement, RDF.predicate, WDT.P19) in graph
    assert graph.value(statement, RELX.score).toPython() == 0.75
    assert graph.value(statement, RELX["count"]).toPython() == 2
    assert str(graph.value(statement, RELX.sentence)) == "MARIE CURIE, born in Warsaw."
    assert str(graph.value(statement, RELX.doc)) == "2"
    unmapped = rdflib.URIRef("urn:spacy-relx:relation/studied%20in")
    assert str(graph.value(unmapped, RDFS.label)) == "studied in"


def test_sparql_answers_a_question():
    graph = to_rdf(merge_relations(corpus()), properties=load_properties("general"))
    found = graph.query(
        "SELECT ?name ?score WHERE { ?person wdt:P19 wd:Q270; rdfs:label ?name. "
        "?s rdf:subject ?person; rdf:predicate wdt:P19; relx:score ?score. FILTER(?score > 0.6) }"
    )
    assert [(str(name), score.toPython()) for name, score in found] == [("Marie Curie", 0.75)]


@pytest.mark.parametrize(("suffix", "syntax"), [(".ttl", "turtle"), (".jsonld", "json-ld"), (".nt", "nt")])
@pytest.mark.parametrize("merge", [None, False])
def test_rdflib_reads_the_same_graph_back(tmp_path, suffix, syntax, merge):
    path = tmp_path / f"x{suffix}"
    given_docs = [*corpus(), hostile()]
    export(given_docs, path, options=Options(merge=merge))
    merged = merge_relations(given_docs, max_evidence=9)
    assert isomorphic(rdflib.Graph().parse(path, format=syntax), to_rdf(merged, every_mention=merge is False))


@given(doc=docs())
@settings(max_examples=40, deadline=None)
def test_the_triples_of_a_doc_come_back(doc):
    """Names and labels of the facts, found again in what rdflib reads."""
    merged = merge_relations([doc, hostile()])
    file = io.BytesIO()
    to_rdf(merged).serialize(file, format="turtle", encoding="utf-8")
    graph = rdflib.Graph().parse(data=file.getvalue(), format="turtle")
    found = {
        tuple(
            printable(str(graph.value(s, p)))
            for s, p in ((head, RDFS.label), (statement, RELX.label), (tail, RDFS.label))
        )
        for statement in graph.subjects(RDF.type, RDF.Statement)
        for head, tail in [(graph.value(statement, RDF.subject), graph.value(statement, RDF.object))]
    }
    entities = merged.entities
    assert found == {
        (printable(entities[r.head].name), printable(r.label), printable(entities[r.tail].name))
        for r in merged.relations
    }


def test_the_jsonld_has_only_prefixes_of_its_own(tmp_path):
    export(corpus(), tmp_path / "x.jsonld", options=Options(properties=load_properties("general")))
    context = json.loads((tmp_path / "x.jsonld").read_text("utf8"))["@context"]
    assert set(context) <= {"relx", "relation", "type", "wd", "wdt", "rdf", "rdfs", "skos", "owl", "xsd"}


def test_without_provenance_there_are_triples_only():
    graph = to_rdf(merge_relations(corpus()), provenance=False)
    assert not list(graph.subjects(RDF.type, RDF.Statement))
    assert len(list(graph.triples((CURIE, None, None)))) == 5  # name, other name, type, two facts


def test_the_same_corpus_gives_the_same_iris():
    assert set(to_rdf(merge_relations(corpus()))) == set(to_rdf(merge_relations(corpus())))


def test_ids_that_are_iris_are_taken_and_others_made():
    ids = {"Ann": "https://example.org/ann", "Bob": "local 7", "Cid": "javascript:alert(1)"}
    doc = annotate(
        "Ann met Bob. Cid met Ann.", ("Ann", "P", "met", "Bob", "P", 0.5), ("Cid", "P", "met", "Ann", "P", 0.5), ids=ids
    )
    nodes = set(to_rdf(merge_relations(doc), provenance=False).subjects(RDFS.label))
    assert {str(node) for node in nodes} == {
        "https://example.org/ann",
        "urn:spacy-relx:kb/local%207",
        "urn:spacy-relx:kb/javascript%3Aalert%281%29",
        "urn:spacy-relx:relation/met",
    }


def test_base_and_inverse():
    (doc, _) = corpus()
    (relation,) = doc._.relations
    doc._.relations = [{**relation.to_dict(), "inverse_label": "birthplace of"}]
    graph = to_rdf(merge_relations(doc), base="https://example.org/g/")
    met = rdflib.URIRef("https://example.org/g/relation/born_in")
    assert graph.value(met, OWL.inverseOf) == rdflib.URIRef("https://example.org/g/relation/birthplace%20of")
    for broken in ("no iri", "https://example.org/<g>", ""):
        with pytest.raises(ConfigError, match="base IRI"):
            to_rdf(merge_relations(doc), base=broken)


# Properties


def test_bundled_label_sets_have_wikidata_properties():
    assert mapped_schemas() == ["fewrel", "general", "rebel", "redocred", "wiki80"]
    for name in ("fewrel", "redocred", "wiki80"):
        found = load_properties(name)
        assert set(found) == {label.name for label in make_schema(name).labels}
    assert load_properties("redocred")["place of birth"] == Property(str(WDT.P19))
    assert "airline hub" not in load_properties("rebel")  # of which the id is not certain


def test_properties_of_general_mean_what_the_published_names_say():
    names = {}
    for schema in ("redocred", "rebel"):
        for label in make_schema(schema).labels:
            names.setdefault(label.id, set()).add(label.name)
    found = load_properties("general")
    assert {label.name for label in make_schema("general").labels} >= set(found)
    ids = {label: names[known.iri.rpartition("/")[2]] for label, known in found.items()}
    assert ids["born_in"] == {"place of birth"}
    assert ids["founded_on"] == {"inception"}
    assert ids["borders"] == {"shares border with"}
    assert found["child_of"] == Property(str(WDT.P40), is_reversed=True)


def test_a_reversed_property_leads_from_tail_to_head():
    doc = annotate("Irene, child of Marie.", ("Irene", "PERSON", "child_of", "Marie", "PERSON", 0.5))
    graph = to_rdf(merge_relations(doc), properties=load_properties("general"))
    ((parent, _, child),) = graph.triples((None, WDT.P40, None))
    assert (str(graph.value(parent, RDFS.label)), str(graph.value(child, RDFS.label))) == ("Marie", "Irene")


@pytest.mark.parametrize(
    ("value", "iri"),
    [
        ("P19", str(WDT.P19)),
        ("wdt:P19", str(WDT.P19)),
        ("schema:birthPlace", "https://schema.org/birthPlace"),
        ("https://example.org/p#bornIn", "https://example.org/p#bornIn"),
        ("urn:x:born", "urn:x:born"),
    ],
)
def test_properties_of_a_file(tmp_path, value, iri):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"born_in": value, "contains": f"^{value}"}))
    assert load_properties(str(path)) == {"born_in": Property(iri), "contains": Property(iri, is_reversed=True)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"born_in": "nonsense"}', "'born_in' has the property 'nonsense'"),
        ('{"born_in": "https://a b"}', "Expected an IRI"),
        ('{"born_in": "unknown:thing"}', "prefixes wdt"),
        ('{"born_in": 19}', "has the property 19"),
        ('["born_in"]', "holds list"),
        ("{", "is not JSON"),
        ('{"labels": ["born_in"]}', "No label of the schema"),
    ],
)
def test_broken_properties_are_named(tmp_path, content, message):
    path = tmp_path / "p.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_properties(str(path))


@pytest.mark.parametrize("name", ["nowhere.json", "conll04", "redocredd"])
def test_unknown_properties_say_what_there_is(name):
    with pytest.raises(ConfigError, match=r"Did you mean 'redocred'|does not exist|Expected one of fewrel, general"):
        load_properties(name)


def test_a_schema_file_with_ids(tmp_path):
    path = tmp_path / "schema.json"
    path.write_text('{"labels": {"born_in": {"id": "P19"}, "other": {}}}')
    assert load_properties(str(path)) == {"born_in": Property(str(WDT.P19))}


def test_hostile_names_are_literals_as_they_are():
    graph = to_rdf(merge_relations(hostile()))
    labels = {str(label) for label in graph.objects(None, RELX.label)}
    assert printable(HOSTILE) in labels
