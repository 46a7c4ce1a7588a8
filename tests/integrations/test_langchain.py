"""The adapter to LangChain, against the real packages."""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.documents import BaseDocumentTransformer, Document
from langchain_core.load import dumpd, load
from tiny import FACTORY, TEXT, ScriptedEngine, pipeline, scripted

from spacy_relx.errors import ConfigError, RelxWarning
from spacy_relx.integrations import langchain
from spacy_relx.integrations.langchain import RelxDocumentTransformer, RelxGraphTransformer

if TYPE_CHECKING:
    from spacy.language import Language

FOUNDED = {("Apple", "Steve Jobs"): {"founded_by": 0.9}}
HOMES = ("langchain_neo4j.graphs.graph_document", "langchain_community.graphs.graph_document")


@pytest.fixture
def nlp(smollm2_tokenizer: Any) -> Language:
    nlp = pipeline(threshold=0.5)
    scripted(nlp, ScriptedEngine(smollm2_tokenizer, FOUNDED))
    return nlp


@pytest.fixture(params=HOMES)
def home(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One of the two packages that have the class, as if it were the only one."""
    monkeypatch.setattr(langchain, "_HOMES", (request.param,))
    return str(request.param)


def test_a_graph_document_has_nodes_relationships_and_where_they_come_from(nlp: Language, home: str) -> None:
    document = Document(page_content=TEXT, id="doc-1", metadata={"page": 3})
    empty = Document(page_content="Nothing here.")
    graph, nothing = RelxGraphTransformer(nlp).convert_to_graph_documents([document, empty])
    assert type(graph).__module__ == home
    assert {(node.id, node.type) for node in graph.nodes} == {("Apple", "ORG"), ("Steve Jobs", "PERSON")}
    (relationship,) = graph.relationships
    ends = relationship.source.id, relationship.type, relationship.target.id
    assert ends == ("Apple", "founded_by", "Steve Jobs")
    found = relationship.properties
    assert found["score"] == pytest.approx(0.9)
    assert found["sentence"] == "Steve Jobs co-founded Apple in Cupertino."
    assert TEXT[found["head_start_char"] : found["head_end_char"]] == "Apple"
    assert TEXT[found["tail_start_char"] : found["tail_end_char"]] == "Steve Jobs"
    assert (found["count"], found["source"]) == (1, "doc-1")
    assert graph.source == document
    assert (nothing.nodes, nothing.relationships, nothing.source) == ([], [], empty)


def test_offsets_are_those_of_the_document_also_in_a_later_sentence(nlp: Language, home: str) -> None:
    text = f"Nothing here. {TEXT} {TEXT}"
    transformer = RelxGraphTransformer(nlp)
    graph = transformer.process_response(Document(page_content=text, metadata={"source": "a.txt"}))
    (relationship,) = graph.relationships
    found = relationship.properties
    assert (found["count"], found["source"]) == (2, "a.txt")
    assert text[found["head_start_char"] : found["head_end_char"]] == "Apple"
    assert found["head_start_char"] < len(TEXT)


def test_the_asynchronous_variants_agree_also_when_many_run_at_once(nlp: Language, home: str) -> None:
    transformer = RelxGraphTransformer(nlp)
    document = Document(page_content=TEXT)

    async def many() -> list[Any]:
        return await asyncio.gather(*(transformer.aconvert_to_graph_documents([document]) for _ in range(5)))

    expected = transformer.convert_to_graph_documents([document])
    assert asyncio.run(many()) == [expected] * 5
    assert asyncio.run(transformer.aprocess_response(document)) == expected[0]


def test_a_graph_document_can_be_written_and_read(nlp: Language, home: str) -> None:
    (graph,) = RelxGraphTransformer(nlp).convert_to_graph_documents([Document(page_content=TEXT)])
    again = type(graph).model_validate_json(graph.model_dump_json())
    assert again == graph


def test_relations_in_the_metadata(nlp: Language) -> None:
    documents = [Document(page_content=TEXT, id="1", metadata={"page": 3}), Document(page_content="Nothing here.")]
    transformer = RelxDocumentTransformer(nlp)
    assert isinstance(transformer, BaseDocumentTransformer)
    first, second = transformer.transform_documents(documents)
    assert documents[0].metadata == {"page": 3}
    assert (first.id, first.metadata["page"], first.page_content) == ("1", 3, TEXT)
    assert first.metadata["relations"] == [relation.to_dict() for relation in nlp(TEXT)._.relations]
    assert second.metadata == {"relations": []}
    assert load(dumpd(first), allowed_objects=[Document]) == first
    assert asyncio.run(transformer.atransform_documents(documents)) == [first, second]


def test_the_relations_of_a_component_with_another_attribute(smollm2_tokenizer: Any) -> None:
    nlp = pipeline(threshold=0.5, attr="facts")
    scripted(nlp, ScriptedEngine(smollm2_tokenizer, FOUNDED))
    (document,) = RelxDocumentTransformer(nlp, key="facts").transform_documents([Document(page_content=TEXT)])
    assert [fact["label"] for fact in document.metadata["facts"]] == ["founded_by"]


def test_a_pipeline_without_the_component_is_refused(nlp: Language) -> None:
    nlp.remove_pipe(FACTORY)
    for transformer in (RelxGraphTransformer, RelxDocumentTransformer):
        with pytest.raises(ConfigError, match=r"has no relation extractor\. Expected .* nlp\.add_pipe"):
            transformer(nlp)


def test_a_failing_document_raises_and_never_shifts_the_others(nlp: Language, smollm2_tokenizer: Any) -> None:
    scripted(nlp, ScriptedEngine(smollm2_tokenizer, FOUNDED | {("Ada Lovelace", "Apple"): ValueError("broken")}))
    documents = [Document(page_content=text) for text in ("Ada Lovelace saw Apple.", "Apple took Steve Jobs.")]
    transformer = RelxDocumentTransformer(nlp)
    with pytest.raises(ValueError, match="broken"):
        transformer.transform_documents(documents)
    nlp.set_error_handler(lambda name, component, docs, error: None)
    with pytest.warns(RelxWarning, match=r"1 of 2 texts failed .* the first is number 0"):
        first, second = transformer.transform_documents(documents)
    assert first.metadata["relations"] == []
    assert [relation["label"] for relation in second.metadata["relations"]] == ["founded_by"]


def test_without_a_graph_package_the_error_names_the_extra(nlp: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(langchain, "_HOMES", ("langchain_nowhere.graphs",))
    with pytest.raises(ImportError, match=r"spacy-relx\[langchain\]"):
        RelxGraphTransformer(nlp).convert_to_graph_documents([])


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("langchain", "langchain_core.documents", "langchain"),
        ("llamaindex", "llama_index.core.graph_stores.types", "llama-index"),
    ],
)
def test_without_the_package_the_error_names_the_extra(
    module: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"spacy_relx.integrations.{module}", raising=False)
    with pytest.raises(ImportError, match=rf"pip install 'spacy-relx\[{extra}\]'"):
        importlib.import_module(f"spacy_relx.integrations.{module}")


def test_the_graph_classes_are_those_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    used = importlib.import_module(HOMES[1])
    monkeypatch.delitem(sys.modules, HOMES[0], raising=False)
    assert langchain._graph_classes() is used
