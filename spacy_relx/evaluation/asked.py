"""Which component is asked, what of it a run records, and which Docs it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spacy.tokens import Span

from spacy_relx.errors import ConfigError
from spacy_relx.pipeline import RelationExtractor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spacy.language import Language
    from spacy.tokens import Doc

    from spacy_relx.evaluation.records import Protocol


def find_component(pipeline: Language | RelationExtractor) -> RelationExtractor:
    """The relation extractor of a pipeline.

    Raises:
        ConfigError: If there is none.
    """
    if isinstance(pipeline, RelationExtractor):
        return pipeline
    for _, component in pipeline.pipeline:
        if isinstance(component, RelationExtractor):
            return component
    raise ConfigError(
        f"The pipeline has no relation extractor among {pipeline.pipe_names}. Expected one; add it with "
        'nlp.add_pipe("llama_relation_extractor").'
    )


def check_finds_entities(nlp: Language | None) -> None:
    """Refuse a pipeline that finds no entities.

    Raises:
        ConfigError: If it is one, or there is none.
    """
    if nlp is None:
        raise ConfigError(
            "The protocol predicted_entities got a component alone. Expected a pipeline that finds entities."
        )
    if not any("doc.ents" in nlp.get_pipe_meta(name).assigns for name in nlp.pipe_names):
        raise ConfigError(
            f"The pipeline has no component that finds entities among {nlp.pipe_names}. The protocol "
            "predicted_entities needs one; with annotated entities, use gold_entities."
        )


def settings_of(component: RelationExtractor) -> dict[str, Any]:
    """All that a component's answers depend on, as plain values for `RunInfo.settings`."""
    from spacy_relx.shim import engine_shim

    settings, schema = component.settings, component.schema
    to_dict = getattr(component.candidates, "to_dict", None)
    return {
        "model": engine_shim(component.model).spec.to_dict(),
        "prompt": settings.prompt.to_dict(),
        "decoding": settings.decoding,
        "scoring": settings.scoring,
        "candidates": to_dict() if to_dict is not None else repr(component.candidates),
        "schema": schema.to_dict(),
        "symmetric": [label.name for label in schema if label.symmetric],
        "mirrors": dict(schema.mirrors),
    }


def asked_docs(
    nlp: Language | None, protocol: Protocol, entity_types: Mapping[str, str], docs: Sequence[Doc]
) -> list[Doc]:
    """The Docs that the component reads, one for each annotated Doc: with its entities, or as a pipeline sees its text.

    Args:
        nlp: The pipeline; None: the component reads the annotated Docs as they are.
        protocol: Which entities it is to read.
        entity_types: The data set's names for the pipeline's entity types, with predicted entities.
        docs: The annotated Docs.
    """
    if nlp is None:
        return list(docs)
    ours = [name for name in nlp.pipe_names if isinstance(nlp.get_pipe(name), RelationExtractor)]
    if protocol == "predicted_entities":
        with nlp.select_pipes(disable=ours):
            return [_with_types(doc, entity_types) for doc in nlp.pipe([doc.text for doc in docs])]
    if all(doc.has_annotation("SENT_START") for doc in docs):
        return list(docs)
    # Annotated entities stay as they are; the pipeline gives what the data lack, such as sentence boundaries.
    setters = [name for name in nlp.pipe_names if "doc.ents" in nlp.get_pipe_meta(name).assigns]
    with nlp.select_pipes(disable=[*ours, *setters]):
        return [doc if doc.has_annotation("SENT_START") else nlp(doc.copy()) for doc in docs]


def _with_types(doc: Doc, names: Mapping[str, str]) -> Doc:
    """Call the types of entities what the data set calls them."""
    if names:
        doc.ents = [
            Span(doc, ent.start, ent.end, names.get(ent.label_, ent.label_), kb_id=ent.kb_id_) for ent in doc.ents
        ]
    return doc
