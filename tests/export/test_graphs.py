import csv
import io
import re
from itertools import pairwise

import duckdb
import networkx as nx
import pytest
from antlr4 import CommonTokenStream, InputStream, Token
from antlr4.error.ErrorListener import ErrorListener
from antlr4_cypher import CypherLexer, CypherParser
from exported import annotate, corpus, docs, hostile
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_relx.errors import DataError
from spacy_relx.export import Options, cypher_queries, export, merge_relations, to_networkx
from spacy_relx.export.characters import identifier, one_line, printable
from spacy_relx.export.neo4j import literal, write_cypher, write_neo4j_csv
from spacy_relx.export.networks import write_gexf, write_graphml

# networkx


def test_facts_are_edges_with_scores_and_provenance():
    graph = to_networkx(merge_relations(corpus()))
    assert isinstance(graph, nx.MultiDiGraph)
    assert graph.nodes["PERSON:marie curie"] == {
        "name": "Marie Curie",
        "label": "PERSON",
        "kb_id": "",
        "aliases": "MARIE CURIE",
        "n_mentions": 2,
    }
    assert graph.nodes["kb:Q270"]["kb_id"] == "Q270"
    born = graph.edges["PERSON:marie curie", "kb:Q270", "born_in"]
    assert (born["score"], born["mean_score"], born["count"], born["n_docs"]) == (0.75, 0.625, 2, 2)
    assert (born["doc"], born["sentence"]) == ("2", "MARIE CURIE, born in Warsaw.")
    assert not {"head", "tail", "head_id"} & set(born)
    assert graph.number_of_edges() == 2


def test_every_mention_is_an_edge_if_wanted():
    graph = to_networkx(merge_relations(corpus(), max_evidence=10), every_mention=True)
    found = graph.get_edge_data("PERSON:marie curie", "kb:Q270")
    assert [(edge["doc"], edge["score"]) for edge in found.values()] == [("2", 0.75), ("first", 0.5)]
    assert "count" not in found[0]


def as_xml(value):
    """What XML gives back: its readers turn every line end into a line feed."""
    return printable(value).replace("\r\n", "\n").replace("\r", "\n") if isinstance(value, str) else value


@given(doc=docs())
@settings(max_examples=40, deadline=None)
def test_networkx_reads_the_graphml(doc):
    merged = merge_relations([doc, hostile()])
    file = io.BytesIO()
    write_graphml(merged, file)
    file.seek(0)
    found, made = nx.read_graphml(file, force_multigraph=True), to_networkx(merged)

    def in_xml(key):
        return identifier(key, printable)

    def content(graph):
        nodes = {in_xml(key): {k: as_xml(v) for k, v in values.items()} for key, values in graph.nodes(data=True)}
        edges = [
            (in_xml(head), in_xml(tail), sorted((k, as_xml(v)) for k, v in values.items()))
            for head, tail, values in graph.edges(data=True)
        ]
        return nodes, sorted(edges, key=str)

    assert content(found) == content(made)


def test_networkx_reads_the_gexf_with_names_as_labels():
    file = io.BytesIO()
    write_gexf(merge_relations([*corpus(), hostile()]), file)
    file.seek(0)
    graph = nx.read_gexf(file)
    assert graph.nodes["PERSON:marie curie"]["label"] == "Marie Curie"
    assert graph.nodes["PERSON:marie curie"]["type"] == "PERSON"
    assert graph.number_of_edges() == 4
    assert sorted(values["score"] for *_, values in graph.edges(data=True)) == [0.25, 0.75, 1.0, 1.0]


# Neo4j's import files


def read_csv(path):
    with path.open(encoding="utf8", newline="") as file:
        return list(csv.reader(file))


def test_neo4j_files_have_the_headers_of_its_import(tmp_path):
    summary = export([*corpus(), hostile()], tmp_path / "neo4j", "neo4j")
    nodes = read_csv(tmp_path / "neo4j" / "nodes.csv")
    relationships = read_csv(tmp_path / "neo4j" / "relationships.csv")
    assert nodes[0] == ["key:ID", "name", "label", "kb_id", "aliases", "n_mentions:long", ":LABEL"]
    assert relationships[0][:6] == [":START_ID", ":END_ID", ":TYPE", "label", "score:double", "mean_score:double"]
    assert relationships[0][6:8] == ["count:long", "n_docs:long"]
    assert nodes[1] == ["PERSON:marie curie", "Marie Curie", "PERSON", "", "MARIE CURIE", "2", "Entity;PERSON"]
    assert relationships[1][:5] == ["PERSON:marie curie", "kb:Q270", "born_in", "born_in", "0.75"]
    assert (summary.n_entities, summary.n_relations) == (len(nodes) - 1, len(relationships) - 1) == (5, 4)


@given(doc=docs())
@settings(max_examples=30, deadline=None)
def test_neo4j_files_have_a_row_a_line_whose_ends_exist(tmp_path_factory, doc):
    folder = tmp_path_factory.mktemp("neo4j")
    merged = merge_relations([doc, hostile()])
    write_neo4j_csv(merged, folder)
    for name in ("nodes.csv", "relationships.csv"):
        rows = read_csv(folder / name)
        assert len(re.split(r"\r\n|\r|\n", (folder / name).read_text("utf8"))) == len(rows) + 1
        assert {len(row) for row in rows} == {len(rows[0])}
    keys = [row[0] for row in read_csv(folder / "nodes.csv")[1:]]
    ends = {end for row in read_csv(folder / "relationships.csv")[1:] for end in row[:2]}
    assert ends <= set(keys)
    # A second colon-separated label would be a node's that nobody asked for.
    assert all(row[-1].count(";") <= 1 for row in read_csv(folder / "nodes.csv"))


def test_duckdb_joins_the_neo4j_files(tmp_path):
    export(corpus(), tmp_path / "n", "neo4j")
    found = duckdb.sql(
        f"SELECT h.name, r.label, t.name FROM '{tmp_path}/n/relationships.csv' r "
        f'JOIN \'{tmp_path}/n/nodes.csv\' h ON h."key:ID" = r.":START_ID" '
        f'JOIN \'{tmp_path}/n/nodes.csv\' t ON t."key:ID" = r.":END_ID" ORDER BY r.label'
    ).fetchall()
    assert found == [("Marie Curie", "born_in", "Warsaw"), ("Marie Curie", "studied in", "Paris")]


# Cypher


class Strict(ErrorListener):
    def syntaxError(self, recognizer, offendingSymbol, line, column, msg, e):
        raise ValueError(f"{line}:{column} {msg}")


def lex(script):
    lexer = CypherLexer(InputStream(script))
    lexer.removeErrorListeners()
    lexer.addErrorListener(Strict())
    stream = CommonTokenStream(lexer)
    stream.fill()
    return stream


def parse(query):
    """Return the tokens of a query; what is not one raises."""
    stream = lex(query)
    parser = CypherParser(stream)
    parser.removeErrorListeners()
    parser.addErrorListener(Strict())
    parser.script()
    return [token.text for token in stream.tokens if token.text.strip() and token.type != Token.EOF]


def split(script):
    """Split a script where the grammar sees a semicolon, which is not where a literal has one."""
    ends = [token.start for token in lex(script).tokens if token.type == CypherLexer.SEMI]
    return [script[a:b].lstrip(";\n") for a, b in pairwise([0, *ends])]


def unescape(text):
    escapes = {"n": "\n", "r": "\r", "t": "\t"}
    return re.sub(r"\\(.)", lambda match: escapes.get(match[1], match[1]), text, flags=re.DOTALL)


def strings(script):
    """Read the literals of an expression, as Cypher's grammar has them, and put together what + joins."""
    _, *tokens = parse(f"RETURN {script}")
    assert tokens[1::2] == ["+"] * (len(tokens) // 2)
    return "".join(unescape(token[1:-1]) for token in tokens[::2])


@given(text=st.text(st.one_of(st.sampled_from("\\u'`0\n;\"n"), st.characters(codec="utf-8")), max_size=12))
@settings(max_examples=80, deadline=None)
def test_a_literal_is_its_text(text):
    assert strings(literal(text)) == text


@given(text=st.text("\\u0027'", max_size=12))
def test_no_escape_of_a_character_can_come_about(text):
    r"""Some versions of Neo4j turn \u0027 into a quote wherever it stands, also after an escaped backslash."""
    assert "\\u" not in literal(text)


def script(given_docs, **kwargs):
    file = io.StringIO()
    write_cypher(merge_relations(given_docs, max_evidence=9), file, **kwargs)
    return file.getvalue()


@pytest.mark.parametrize("every_mention", [False, True])
def test_cypher_of_hostile_text_is_the_queries_it_should_be(every_mention):
    text = script([*corpus(), hostile()], every_mention=every_mention)
    constraint, *queries = split(text)
    assert constraint.startswith("CREATE CONSTRAINT relx_entity IF NOT EXISTS")  # newer than the grammar
    # A query for each type of entities and of relations, and nothing else, whatever the text says.
    assert len(queries) == 4 + 4
    for query in queries:
        tokens = [token.upper() for token in parse(query)]
        assert tokens[:2] == ["UNWIND", "["]
        assert not {"DELETE", "DETACH", "CREATE"} & set(tokens)
    assert "\\u" not in text


def test_cypher_twice_changes_nothing_more():
    """Every write is a MERGE on what identifies the thing, to which the place belongs where each is an edge."""
    for every_mention in (False, True):
        queries = [query for query, _ in cypher_queries(merge_relations(corpus()), every_mention=every_mention)][1:]
        assert all("MERGE" in query and "CREATE" not in query for query in queries)
        relations = [query for query in queries if "MATCH" in query]
        assert all(("doc: row.values.doc" in query) == every_mention for query in relations)


def test_parameters_for_a_driver_are_plain_values():
    (constraint, none), *queries = cypher_queries(merge_relations([*corpus(), hostile()]))
    assert constraint.startswith("CREATE CONSTRAINT")
    assert none == {}
    names = {row["values"]["name"] for query, given in queries if "MATCH" not in query for row in given["rows"]}
    assert {"Marie Curie", "Warsaw", "Paris"} <= names
    # A mention's text is never a part of a query.
    assert not any("Curie" in query or "cmd()" in query.replace("`", "").split("SET n:")[0] for query, _ in queries[:2])


def test_a_folder_with_content_is_left_alone(tmp_path):
    (tmp_path / "kept.txt").write_text("x")
    with pytest.raises(DataError, match="is there already"):
        export(corpus(), tmp_path, "neo4j")
    export(corpus(), tmp_path, "neo4j", options=Options(overwrite=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.txt", "nodes.csv", "relationships.csv"]
    assert not list(tmp_path.parent.glob("*.part"))


def test_symmetric_labels_are_one_fact(tmp_path):
    pair = annotate(
        "Ann met Bob. Bob met Ann.", ("Ann", "P", "met", "Bob", "P", 0.5), ("Bob", "P", "met", "Ann", "P", 0.7)
    )
    assert export(pair, tmp_path / "x.graphml").n_relations == 2
    assert export(pair, tmp_path / "x.graphml", options=Options(symmetric=("met",))).n_relations == 1


def test_one_name_with_two_ids_is_one_entity_by_name(tmp_path):
    given_docs = [
        annotate("Ann is in Paris.", ("Ann", "P", "in", "Paris", "GPE", 0.5), ids={"Paris": number})
        for number in ("Q90", "Q830149")
    ]
    assert export(given_docs, tmp_path / "x.graphml").n_entities == 3
    assert export(given_docs, tmp_path / "x.graphml", options=Options(by_name=True)).n_entities == 2


def test_text_on_one_line():
    assert one_line("a\r\n b\u2028c\x00") == "a b c\N{REPLACEMENT CHARACTER}"
