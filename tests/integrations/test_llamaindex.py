"""The adapter to LlamaIndex, against the real package."""

from __future__ import annotations

import asyncio
import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core import MockEmbedding, PropertyGraphIndex, StorageContext, load_index_from_storage
from llama_index.core.graph_stores.types import KG_NODES_KEY, KG_RELATIONS_KEY
from llama_index.core.indices.property_graph import ImplicitPathExtractor
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from tiny import FACTORY, TEXT, ScriptedEngine, model_block, pipeline, scripted

from spacy_relx.errors import ConfigError
from spacy_relx.integrations.llamaindex import RelxPathExtractor

if TYPE_CHECKING:
    from pathlib import Path

    from spacy.language import Language

FOUNDED = {("Apple", "Steve Jobs"): {"founded_by": 0.9}}


@pytest.fixture
def nlp(smollm2_tokenizer: Any) -> Language:
    nlp = pipeline(threshold=0.5)
    scripted(nlp, ScriptedEngine(smollm2_tokenizer, FOUNDED))
    return nlp


def text_node(text: str = TEXT, **metadata: Any) -> TextNode:
    return TextNode(text=text, id_="n1", metadata=metadata)


def test_entities_and_relations_are_where_the_index_looks_for_them(nlp: Language) -> None:
    given = [text_node(file_name="a.txt"), TextNode(text="Nothing here.")]
    node, nothing = RelxPathExtractor(nlp)(given)
    assert node is given[0]
    assert {(n.id, n.label) for n in node.metadata[KG_NODES_KEY]} == {("Apple", "ORG"), ("Steve Jobs", "PERSON")}
    (relation,) = node.metadata[KG_RELATIONS_KEY]
    assert (relation.source_id, relation.label, relation.target_id) == ("Apple", "founded_by", "Steve Jobs")
    found = relation.properties
    assert found["score"] == pytest.approx(0.9)
    assert (found["sentence"], found["file_name"]) == ("Steve Jobs co-founded Apple in Cupertino.", "a.txt")
    assert TEXT[found["head_start_char"] : found["head_end_char"]] == "Apple"
    assert (nothing.metadata[KG_NODES_KEY], nothing.metadata[KG_RELATIONS_KEY]) == ([], [])


def test_it_adds_to_what_another_extractor_found(nlp: Language) -> None:
    node = text_node()
    node.relationships[NodeRelationship.NEXT] = RelatedNodeInfo(node_id="n2")
    (node,) = ImplicitPathExtractor()([node])
    (node,) = RelxPathExtractor(nlp)([node])
    assert [relation.label for relation in node.metadata[KG_RELATIONS_KEY]] == ["NEXT", "founded_by"]
    assert not {KG_NODES_KEY, KG_RELATIONS_KEY} & set(node.metadata[KG_RELATIONS_KEY][1].properties)


@pytest.mark.parametrize("use_async", [False, True])
def test_a_property_graph_index_is_built_stored_and_read(nlp: Language, use_async: bool, tmp_path: Path) -> None:
    index = PropertyGraphIndex(
        nodes=[text_node(file_name="a.txt")],
        kg_extractors=[RelxPathExtractor(nlp)],
        llm=MockLLM(),
        embed_model=MockEmbedding(embed_dim=2),
        use_async=use_async,
    )
    index.storage_context.persist(str(tmp_path))
    again = load_index_from_storage(
        StorageContext.from_defaults(persist_dir=str(tmp_path)), llm=MockLLM(), embed_model=MockEmbedding(embed_dim=2)
    )
    for store in (index.property_graph_store, again.property_graph_store):
        ((head, relation, tail),) = store.get_triplets(entity_names=["Apple"])
        assert (head.name, relation.label, tail.name) == ("Apple", "founded_by", "Steve Jobs")
        assert relation.properties["score"] == pytest.approx(0.9)
        assert relation.properties["triplet_source_id"] == "n1"
        assert store.get_llama_nodes(["n1"])[0].metadata == {"file_name": "a.txt"}


def test_the_asynchronous_variant_agrees_also_when_many_run_at_once(nlp: Language) -> None:
    extractor = RelxPathExtractor(nlp)

    async def many() -> list[Any]:
        return await asyncio.gather(*(extractor.acall([text_node()]) for _ in range(5)))

    expected = list(extractor([text_node()]))
    assert asyncio.run(many()) == [expected] * 5


def test_as_a_dict_it_names_the_pipeline_by_a_digest(nlp: Language, tiny_llama: Path) -> None:
    extractor = RelxPathExtractor(nlp, batch_size=8)
    data = json.loads(extractor.to_json())
    assert data == {"batch_size": 8, "pipeline": extractor.pipeline, "class_name": "RelxPathExtractor"}
    again = RelxPathExtractor.from_dict(data, nlp=nlp)
    assert again.to_dict() == extractor.to_dict()
    other = RelxPathExtractor(pipeline(tiny_llama, threshold=0.6))
    assert other.pipeline != extractor.pipeline


def test_an_ingestion_cache_asks_another_pipeline_anew(nlp: Language, smollm2_tokenizer: Any) -> None:
    other = pipeline(threshold=0.95)
    engines = [scripted(one, ScriptedEngine(smollm2_tokenizer, FOUNDED)) for one in (nlp, other)]
    first = IngestionPipeline(transformations=[RelxPathExtractor(nlp)])
    second = IngestionPipeline(transformations=[RelxPathExtractor(other)], cache=first.cache)
    found = [len(one.run(nodes=[text_node()])[0].metadata[KG_RELATIONS_KEY]) for one in (first, first, second)]
    assert found == [1, 1, 0]
    assert [len(engine.calls) for engine in engines] == [1, 1]


@pytest.mark.usefixtures("one_thread")
def test_a_pickled_extractor_finds_the_same(tiny_llama: Path) -> None:
    extractor = RelxPathExtractor(pipeline(tiny_llama, model=model_block(tiny_llama)), batch_size=8)
    again = pickle.loads(pickle.dumps(extractor))
    assert again.batch_size == 8
    found = [one([text_node()])[0].metadata[KG_RELATIONS_KEY] for one in (extractor, again)]
    assert found[0] == found[1] != []


def test_a_pipeline_without_the_component_is_refused(nlp: Language) -> None:
    nlp.remove_pipe(FACTORY)
    with pytest.raises(ConfigError, match="which has no relation extractor"):
        RelxPathExtractor(nlp)
