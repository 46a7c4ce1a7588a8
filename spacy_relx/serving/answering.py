"""Documents of requests through the pipeline, and what is sent back of them. One thread at a time."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from spacy_relx._inputs import Record
from spacy_relx._outputs import Result, entity_row
from spacy_relx._stream import describe, process
from spacy_relx.errors import DataError, RelxError, ServerError
from spacy_relx.evaluation.asked import find_component

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc, Span

    from spacy_relx.serving.messages import GivenDocument, GivenEntity

_LOG = logging.getLogger(__name__)

#: Characters of a text that an error repeats.
_MOST_QUOTED = 80


class Answering:
    """Answers documents with a pipeline.

    Args:
        nlp: The pipeline, which is the service's own from now on.
        pool: Whether documents share packs on a processor, too.

    Raises:
        ConfigError: If the pipeline has no relation extractor.
    """

    def __init__(self, nlp: Language, *, pool: bool) -> None:
        self.nlp, self.component = nlp, find_component(nlp)
        self.component.pool = pool

    def __call__(self, documents: list[GivenDocument]) -> list[dict[str, Any]]:
        """Answer some documents together; one that fails has its error, and costs no other one."""
        records = [self._record(document) for document in documents]
        # Those that bring entities pass through fewer components, so each kind goes in one go.
        order = sorted(range(len(records)), key=lambda i: records[i].keeps_ents)
        results = process(self.nlp, [records[i] for i in order], batch_size=max(1, len(records)), describe=_describe)
        answers = dict(zip(order, map(self._row, results)))
        return [answers[i] for i in range(len(records))]

    def _record(self, document: GivenDocument) -> Record:
        if document.entities is None:
            return Record(document.id, document.text)
        try:
            doc = self.nlp.make_doc(document.text)
            doc.set_ents(_entities(doc, document.entities))
        except Exception as error:  # a tokenizer may raise what it likes
            return Record(document.id, document.text, error=_describe("tokenizer", error))
        return Record(document.id, document.text, doc=doc)

    def _row(self, result: Result) -> dict[str, Any]:
        record, doc, error = result
        relations = [] if doc is None else getattr(doc._, self.component.settings.attr)
        return {
            "id": record.id,
            "entities": [] if doc is None else [entity_row(ent) for ent in doc.ents],
            "relations": [relation.to_dict() for relation in relations],
            "error": error,
        }


def _entities(doc: Doc, given: list[GivenEntity]) -> list[Span]:
    """The given entities as Spans.

    Raises:
        DataError: If one is not in the text, not made of tokens, or overlaps another.
    """
    spans: list[Span] = []
    for entity in sorted(given, key=lambda entity: entity.start_char):
        start, end = entity.start_char, entity.end_char
        if not start < end <= len(doc.text):
            raise DataError(
                f"An entity has the characters {start} to {end}, but the text has {len(doc.text)}. Expected a first "
                "character, and one past the last, in Unicode code points."
            )
        if spans and start < spans[-1].end_char:
            raise DataError(f"Two entities overlap at character {start}. Expected entities apart from each other.")
        span = doc.char_span(start, end, label=entity.label)
        if span is None:
            near = doc.char_span(start, end, alignment_mode="expand")
            where = (
                ""
                if near is None
                else f" The tokens there are {_quoted(near.text)}, {near.start_char} to {near.end_char}."
            )
            raise DataError(
                f"The entity {_quoted(doc.text[start:end])}, characters {start} to {end}, does not begin and end where "
                f"a token does.{where}"
            )
        spans.append(span)
    return spans


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _MOST_QUOTED else f"{text[:_MOST_QUOTED]}…")


def _describe(where: str, error: Exception) -> str:
    """Say of a failed document what its sender may know: no address of a server, no path of this machine."""
    if isinstance(error, RelxError) and not isinstance(error, ServerError):
        return describe(where, error)
    _LOG.error("A document failed in %s", where, exc_info=error)
    if isinstance(error, ServerError):
        return f"{where}: the server that computes the model gave no usable answer; the service's log says why"
    return f"{where}: {type(error).__name__}; the service's log says more"
