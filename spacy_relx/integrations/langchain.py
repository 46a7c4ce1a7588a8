"""Relations for LangChain: graph documents as `LLMGraphTransformer` gives them, or relations in metadata."""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from spacy_relx.integrations._graph import annotate, provenance, relations_attr
from spacy_relx.merging import merge_relations

try:
    from langchain_core.documents import BaseDocumentTransformer, Document
except ImportError as error:
    raise ImportError(
        "The adapter to LangChain needs langchain-core. Install it with `pip install 'spacy-relx[langchain]'`."
    ) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spacy.language import Language
    from spacy.tokens import Doc

__all__ = ["RelxDocumentTransformer", "RelxGraphTransformer"]

#: Where GraphDocument lives: first where it is kept up. The fields are the same, and graph stores ask for no more.
_HOMES = ("langchain_neo4j.graphs.graph_document", "langchain_community.graphs.graph_document")


class RelxGraphTransformer:
    """Turns documents into graph documents, with a spaCy pipeline in place of a large language model.

    It has the methods of `langchain_experimental`'s `LLMGraphTransformer`, so it can stand where that one stands.

    Nodes are the entities that have relations: `id` is the name, `type` the entity type. A relationship has the label
    as its `type`, letter by letter, and says in its properties where it comes from: `score`, `sentence`, the offsets of
    both mentions in the document's text (`head_start_char`, `head_end_char`, `tail_start_char`, `tail_end_char`),
    `count` (how often the document says it; the others are those of the best score), and `source`, the document's id.

    Args:
        nlp: A pipeline with the component `llama_relation_extractor`.
        batch_size: Documents that the pipeline takes at a time.

    Raises:
        ConfigError: If the pipeline has no relation extractor.
    """

    def __init__(self, nlp: Language, *, batch_size: int = 64) -> None:
        self.nlp = nlp
        self.batch_size = batch_size
        self._attr = relations_attr(nlp)

    def convert_to_graph_documents(self, documents: Sequence[Document], config: Any = None) -> list[Any]:
        """Find the relations of documents.

        Args:
            documents: The documents.
            config: Not used; callers of `LLMGraphTransformer` may give it.

        Returns:
            A `GraphDocument` for each document, in order.

        Raises:
            ImportError: If neither langchain-neo4j nor langchain-community is installed.
        """
        classes = _graph_classes()
        docs = annotate(self.nlp, [document.page_content for document in documents], self.batch_size)
        return [self._graph_document(classes, *pair) for pair in zip(documents, docs)]

    async def aconvert_to_graph_documents(self, documents: Sequence[Document], config: Any = None) -> list[Any]:
        """Find the relations of documents in another thread; see `convert_to_graph_documents`."""
        return await asyncio.to_thread(self.convert_to_graph_documents, documents, config)

    def process_response(self, document: Document, config: Any = None) -> Any:
        """Find the relations of one document; many at once are quicker."""
        return self.convert_to_graph_documents([document], config)[0]

    async def aprocess_response(self, document: Document, config: Any = None) -> Any:
        """Find the relations of one document in another thread."""
        return await asyncio.to_thread(self.process_response, document, config)

    def _graph_document(self, classes: Any, document: Document, doc: Doc) -> Any:
        graph = merge_relations(doc, attr=self._attr)
        nodes = {
            key: classes.Node(
                id=entity.name, type=entity.label or "Node", properties={"kb_id": entity.kb_id} if entity.kb_id else {}
            )
            for key, entity in graph.entities.items()
        }
        source = _source(document)
        relationships = [
            classes.Relationship(
                source=nodes[relation.head],
                target=nodes[relation.tail],
                type=relation.label,
                properties={**provenance(relation), **source},
            )
            for relation in graph.relations
        ]
        return classes.GraphDocument(nodes=list(nodes.values()), relationships=relationships, source=document)


class RelxDocumentTransformer(BaseDocumentTransformer):  # type: ignore[misc]
    """Adds the relations of a document to its metadata, as `Relation.to_dict` gives them; the input is left as it is.

    Args:
        nlp: A pipeline with the component `llama_relation_extractor`.
        key: The metadata key.
        batch_size: Documents that the pipeline takes at a time.

    Raises:
        ConfigError: If the pipeline has no relation extractor.
    """

    def __init__(self, nlp: Language, *, key: str = "relations", batch_size: int = 64) -> None:
        self.nlp = nlp
        self.key = key
        self.batch_size = batch_size
        self._attr = relations_attr(nlp)

    def transform_documents(self, documents: Sequence[Document], **kwargs: Any) -> list[Document]:
        """Return copies of documents with relations in their metadata; `atransform_documents` does it in a thread."""
        docs = annotate(self.nlp, [document.page_content for document in documents], self.batch_size)
        found = [[relation.to_dict() for relation in getattr(doc._, self._attr)] for doc in docs]
        return [
            document.model_copy(update={"metadata": {**document.metadata, self.key: relations}})
            for document, relations in zip(documents, found)
        ]


def _source(document: Document) -> dict[str, str]:
    """The document's id, else what its loader says it came from."""
    source = document.id or document.metadata.get("id") or document.metadata.get("source")
    return {"source": str(source)} if source else {}


def _graph_classes() -> Any:
    """The module with the classes GraphDocument, Node and Relationship: one that is in use, else one that is there."""
    for name in sorted(_HOMES, key=lambda name: name not in sys.modules):
        if find_spec(name.split(".")[0]) is not None:
            return import_module(name)
    raise ImportError(
        "LangChain's GraphDocument needs langchain-neo4j. Install it with `pip install 'spacy-relx[langchain]'`."
    )
