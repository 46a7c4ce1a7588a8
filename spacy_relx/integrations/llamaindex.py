"""Relations for LlamaIndex: a path extractor for its `PropertyGraphIndex`."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

from spacy_relx.integrations._graph import annotate, extractor_name, provenance, relations_attr
from spacy_relx.merging import merge_relations
from spacy_relx.shim import engine_shim

try:
    from llama_index.core.graph_stores.types import KG_NODES_KEY, KG_RELATIONS_KEY, EntityNode, Relation
    from llama_index.core.schema import BaseNode, MetadataMode, TransformComponent
except ImportError as error:
    raise ImportError(
        "The adapter to LlamaIndex needs llama-index-core. Install it with `pip install 'spacy-relx[llama-index]'`."
    ) from error

from pydantic import Field, computed_field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spacy.language import Language
    from spacy.tokens import Doc

__all__ = ["RelxPathExtractor"]


class RelxPathExtractor(TransformComponent):  # type: ignore[misc]
    """Puts the entities and relations of nodes into their metadata, where `PropertyGraphIndex` looks for them.

    Entities that have relations become nodes, which LlamaIndex knows by their names. A relation has the metadata of
    its text node as properties, and beside them `score`, `sentence`, the offsets of both mentions in the node's text
    (`head_start_char`, `head_end_char`, `tail_start_char`, `tail_end_char`) and `count` (how often the node says it;
    the others are those of the best score). The index adds the id of the text node.

    As a dict it leaves the pipeline out; `from_dict(data, nlp=nlp)` takes it in again.

    Args:
        nlp: A pipeline with the component `llama_relation_extractor`.
        batch_size: Text nodes that the pipeline takes at a time.

    Raises:
        ConfigError: If the pipeline has no relation extractor.
    """

    nlp: Any = Field(exclude=True, repr=False)
    batch_size: int = 64

    def __init__(self, nlp: Language, batch_size: int = 64, **kwargs: Any) -> None:
        extractor_name(nlp)  # here, since pydantic would wrap the error
        super().__init__(nlp=nlp, batch_size=batch_size, **kwargs)

    @classmethod
    def class_name(cls) -> str:
        """The name by which LlamaIndex knows this class."""
        return "RelxPathExtractor"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def pipeline(self) -> str:
        """A digest of the pipeline's settings and of the adapter.

        It is part of what LlamaIndex writes of the extractor, so that an ingestion cache asks another pipeline anew.
        """
        digest = hashlib.sha256(self.nlp.config.to_str().encode())
        model = self.nlp.get_pipe(extractor_name(self.nlp)).model
        for file, content in sorted(engine_shim(model).adapter_files().items()):
            digest.update(file.encode() + hashlib.sha256(content).digest())
        return digest.hexdigest()

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Find the relations of text nodes; their metadata are changed in place, as path extractors do."""
        texts = [node.get_content(metadata_mode=MetadataMode.NONE) for node in nodes]
        attr = relations_attr(self.nlp)
        for node, doc in zip(nodes, annotate(self.nlp, texts, self.batch_size)):
            _add_graph(node, doc, attr)
        return nodes

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Find the relations of text nodes in another thread."""
        return await asyncio.to_thread(self.__call__, nodes, **kwargs)


def _add_graph(node: BaseNode, doc: Doc, attr: str) -> None:
    # Another extractor may have been here before. The index takes both keys out of the metadata again.
    kg_nodes = node.metadata.pop(KG_NODES_KEY, [])
    kg_relations = node.metadata.pop(KG_RELATIONS_KEY, [])
    graph = merge_relations(doc, attr=attr)
    found = {
        key: EntityNode(
            name=entity.name, label=entity.label or "entity", properties={"kb_id": entity.kb_id} if entity.kb_id else {}
        )
        for key, entity in graph.entities.items()
    }
    relations = [
        Relation(
            label=relation.label,
            source_id=found[relation.head].id,
            target_id=found[relation.tail].id,
            properties={**node.metadata, **provenance(relation)},
        )
        for relation in graph.relations
    ]
    node.metadata[KG_NODES_KEY] = [*kg_nodes, *found.values()]
    node.metadata[KG_RELATIONS_KEY] = [*kg_relations, *relations]
