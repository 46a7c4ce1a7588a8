"""What an answer of the engine means for a Doc: thresholds, negatives, symmetric and inverse labels, free text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spacy_relx.engine.types import FreeAnswer, Ranking
from spacy_relx.relation import Relation, RelationAnswer
from spacy_relx.scorer import NEGATIVE_LABELS, normalise_answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from spacy.tokens import Span

    from spacy_relx.candidates import Context
    from spacy_relx.schema import Schema
    from spacy_relx.settings import Settings


@dataclass(frozen=True, slots=True)
class Pair:
    """A candidate pair with the text it is read in and the positions of the labels that may answer it."""

    head: Span
    tail: Span
    context: Context
    allowed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """The engine's answers about one Doc, one a pair; `texts` holds the decoded answers of free decoding."""

    pairs: Sequence[Pair]
    results: Sequence[Ranking | FreeAnswer]
    texts: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class AnswerRules:
    """How answers become relations.

    Attributes:
        schema: The labels.
        settings: The component's settings.
        threshold: Threshold of labels that set none.
    """

    schema: Schema
    settings: Settings
    threshold: float

    def apply(self, answered: Answered) -> tuple[list[Relation], list[RelationAnswer]]:
        """The relations of one Doc, in the order of its pairs, and the free answers that are no label of the schema."""
        outside: list[RelationAnswer] = []
        best: dict[tuple[object, ...], Relation] = {}
        for i, pair in enumerate(answered.pairs):
            result = answered.results[i]
            if isinstance(result, Ranking):
                answers = self._ranked(result)
            else:
                answers = iter(self._free(pair, result, answered.texts[i], outside))
            for name, score in answers:
                if score < self._threshold_of(name):
                    continue
                relation, key = self._stored(pair, name, score)
                # Either order of a pair may have given the relation: the higher score stays, text order on a tie.
                if key not in best or _rank(relation) > _rank(best[key]):
                    best[key] = relation
        return list(best.values()), outside

    def _ranked(self, ranking: Ranking) -> Iterator[tuple[str, float]]:
        for score in ranking.scores:
            if score.label < len(self.schema):
                yield self.schema.names[score.label], score.prob
            elif self.settings.keep_no_relation and self.settings.no_relation is not None:
                yield self.settings.no_relation, score.prob

    def _free(
        self, pair: Pair, answer: FreeAnswer, text: str, outside: list[RelationAnswer]
    ) -> list[tuple[str, float]]:
        name, in_schema = self.said(pair, text)
        if not in_schema:
            outside.append(RelationAnswer(pair.head, pair.tail, text, answer.prob))
            return []
        if name is not None:
            return [(name, answer.prob)]
        kept = self.settings.no_relation or normalise_answer(text)
        return [(kept, answer.prob)] if self.settings.keep_no_relation else []

    def said(self, pair: Pair, text: str) -> tuple[str | None, bool]:
        """What a free answer says.

        Returns:
            (label's name, True), (None, True) for no relation, or (the text, False) where it is neither. Without labels
            every answer counts, as in the model card; the published negatives still say nothing.
        """
        said = normalise_answer(text)
        negative = self.settings.negative_prompt
        if negative is not None and said == normalise_answer(negative):
            return None, True
        if not len(self.schema):
            return (None if said in NEGATIVE_LABELS else _line(text)), True
        for position, label in enumerate(self.schema):
            if said == normalise_answer(label.prompt) and position in pair.allowed:
                return label.name, True
        return text, False

    def _threshold_of(self, name: str) -> float:
        if not len(self.schema) and self.settings.threshold is None:
            return 0.0  # a calibrated threshold is about labels, and here there are none
        own = self.schema[name].threshold if name in self.schema else None
        return self.threshold if own is None else own

    def _stored(self, pair: Pair, name: str, score: float) -> tuple[Relation, tuple[object, ...]]:
        name, head, tail = self.schema.canonical(name, pair.head, pair.tail)
        places = ((head.start, head.end), (tail.start, tail.end))
        if name not in self.schema:  # a kept negative, or a free answer where there are no labels
            return Relation(head, tail, name, score), (name, *places)
        label = self.schema[name]
        relation = Relation(head, tail, name, score, label.inverse)
        return relation, (name, *(sorted(places) if label.symmetric else places))


def _rank(relation: Relation) -> tuple[float, bool]:
    head, tail = relation.head, relation.tail
    return relation.score, (head.start, head.end) < (tail.start, tail.end)


def _line(text: str) -> str:
    stripped = text.strip()
    return stripped.splitlines()[0].strip() if stripped else ""
