"""From Docs to answers: which pairs are asked about, in which prompts, and what the engine says. Nothing is written."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spacy_relx.answers import Answered, Pair
from spacy_relx.candidates import EntityPairs, context_text
from spacy_relx.engine.packing import count_tokens
from spacy_relx.engine.types import FreeAnswer, Question, Ranking
from spacy_relx.errors import PartialAnswerError, RelxWarning, ServerError
from spacy_relx.schema import MissingSchema, Schema
from spacy_relx.shim import EngineShim, engine_shim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from spacy.tokens import Doc, Span
    from thinc.api import Model

    from spacy_relx.candidates import Context
    from spacy_relx.engine.types import LabelIds
    from spacy_relx.prompts import PromptBuilder
    from spacy_relx.settings import Settings

# Gives the context of pairs that a function of the user's own enumerates; one for all, so that it warns once.
_DEFAULT_CANDIDATES = EntityPairs()


@dataclass(frozen=True, slots=True)
class Prepared:
    """One Doc's questions."""

    pairs: list[Pair]
    questions: list[Question]

    @property
    def n_tokens(self) -> int:
        """Tokens of the Doc's prompt tree, or somewhat more."""
        return count_tokens([question.prompt for question in self.questions])


class AskingRelations:
    """What makes a relation extractor ask its engine about the pairs of Docs."""

    model: Model
    settings: Settings
    candidates: Callable[..., Iterable[tuple[Span, Span]]]
    #: Whether documents of a stream share packs on a processor, too; see `ask`.
    pool: bool = False
    #: The prompt builder and the labels' ids; None: to be made anew.
    _builder: tuple[PromptBuilder, LabelIds | None] | None

    @property
    def schema(self) -> Schema:
        """The labels.

        Raises:
            SchemaError: If they are in a file that does not exist.
        """
        if isinstance(self.settings.schema, MissingSchema):
            self.settings.schema.fail()
        return self.settings.schema

    def ask(
        self,
        docs: Iterable[Doc],
        pairs: Iterable[Sequence[tuple[Span, Span]] | None] | None = None,
        *,
        top_k: int | None = None,
        use_types: bool = True,
        pool: bool = False,
    ) -> list[Answered]:
        """Ask about some Docs as `predict` does, about other pairs or for more labels; nothing is written.

        Args:
            docs: The Docs.
            pairs: For each Doc the ordered (head, tail) pairs to ask about; None: those that the component enumerates.
            top_k: Labels to rank; None: as many as the component is set to.
            use_types: Whether the labels' entity types limit pairs and answers.
            pool: Whether Docs share packs on a processor too. Twice as fast for many Docs of one pair; a score may
                then differ in the digits that the number format rounds away from that of the Doc alone.

        Raises:
            RelxError: If a Doc cannot be answered; the message says why.
        """
        docs = list(docs)
        given = [None] * len(docs) if pairs is None else list(pairs)
        prepared = [self._prepare(doc, spans, use_types) for doc, spans in zip(docs, given, strict=True)]
        if self._pools() or (pool and not self._shim.deterministic):
            return self._answer(prepared, top_k)
        return [answered for item in prepared for answered in self._answer([item], top_k)]

    def load(self) -> None:
        """Load the model and make the prompts' shared parts now, not at the first pair.

        Raises:
            RelxError: If the model cannot be had or used; the message says why.
        """
        self._bound()

    def candidate_pairs(self, doc: Doc) -> list[tuple[Span, Span]]:
        """The ordered pairs of a Doc that the component asks about."""
        return [(pair.head, pair.tail) for pair in self._pairs(doc)]

    @property
    def _shim(self) -> EngineShim:
        return engine_shim(self.model)

    def _pools(self) -> bool:
        """Whether documents share packs: on a processor only on demand, so that a document's scores stay the same."""
        shim = self._shim
        return shim.is_loaded and (self.pool or shim.engine.device.type != "cpu") and not shim.deterministic

    def _prepare(self, doc: Doc, spans: Sequence[tuple[Span, Span]] | None = None, use_types: bool = True) -> Prepared:
        pairs = self._pairs(doc, spans, use_types)
        if not pairs:
            return Prepared([], [])
        builder, _ = self._bound()
        # Contexts, and the text and type of each mention: spaCy makes a new string at every look.
        texts: dict[Context, str] = {pair.context: "" for pair in pairs}
        for context in texts:
            texts[context] = context_text(doc, context)
        spans_of = {id(span): span for pair in pairs for span in (pair.head, pair.tail)}
        mentions = {key: (span.text, span.label_) for key, span in spans_of.items()}
        questions = []
        for pair in pairs:
            (head, head_type), (tail, tail_type) = mentions[id(pair.head)], mentions[id(pair.tail)]
            prompt = builder.prompt(texts[pair.context], head, tail, head_type, tail_type)
            questions.append(Question(prompt, pair.allowed))
        return Prepared(pairs, questions)

    def _pairs(self, doc: Doc, spans: Iterable[tuple[Span, Span]] | None = None, use_types: bool = True) -> list[Pair]:
        schema, negative = self.schema, self.settings.no_relation is not None
        typed = len(schema) > 0 and use_types
        if spans is not None:
            pass
        elif isinstance(self.candidates, EntityPairs):
            spans = self.candidates(doc, schema.allowed if typed else None)
        else:
            spans = list(self.candidates(doc))
        allowed_of: dict[tuple[int, int], tuple[int, ...]] = {}
        asked, answers = [], []
        for head, tail in spans:
            types = (head.label, tail.label)
            if types not in allowed_of:
                allowed_of[types] = schema.allowed(head.label_, tail.label_) if typed else tuple(range(len(schema)))
            allowed = allowed_of[types]
            if (typed and not allowed) or (head.start, head.end) == (tail.start, tail.end):
                continue
            asked.append((head, tail))
            # The negative is the last label of the engine's set, and may answer any pair.
            answers.append((*allowed, len(schema)) if negative else allowed)
        contexts = self._contexts(doc, asked)
        return [Pair(*pair, context, allowed) for pair, context, allowed in zip(asked, contexts, answers)]

    def _contexts(self, doc: Doc, pairs: Sequence[tuple[Span, Span]]) -> list[Context]:
        candidates = self.candidates
        if not isinstance(candidates, EntityPairs):
            context_of = getattr(candidates, "context", None)
            if context_of is not None:
                return [context_of(doc, head, tail) for head, tail in pairs]
            candidates = _DEFAULT_CANDIDATES
        return candidates.contexts(doc, pairs)

    def _answer_each(self, prepared: list[Prepared]) -> list[Answered | Exception]:
        """Answer some Docs together; the result of one that fails is its error."""
        try:
            return list(self._answer(prepared))
        except PartialAnswerError as error:
            return self._share(prepared, error.results)
        except ServerError as error:  # each question has been asked, more than once
            return [error if item.pairs else Answered([], []) for item in prepared]
        except Exception as error:
            # Which Doc is to blame is found by asking about each alone.
            return [error] if len(prepared) == 1 else [self._answer_each([item])[0] for item in prepared]

    def _answer(self, prepared: list[Prepared], top_k: int | None = None) -> list[Answered]:
        questions = [question for item in prepared for question in item.questions]
        results: list[Ranking] | list[FreeAnswer] = []
        if questions:
            builder, labels = self._bound()
            engine = self._shim.engine
            if self.settings.decoding == "free" or labels is None:
                results = engine.decode(
                    [question.prompt for question in questions],
                    stop_ids=builder.stop_ids,
                    max_new_tokens=self.settings.prompt.max_new_tokens,
                )
            else:
                top_k = self.settings.top_k if top_k is None else top_k
                results = engine.rank(questions, labels, top_k=top_k, scoring=self.settings.scoring)
        return self._share(prepared, results)  # type: ignore[return-value]  # no result is an error

    def _share(self, prepared: Sequence[Prepared], results: Sequence[Any]) -> list[Answered | Exception]:
        """Give each Doc the results of its questions; one error among them is the result of the Doc."""
        shared: list[Answered | Exception] = []
        start = 0
        for item in prepared:
            own = results[start : start + len(item.pairs)]
            start += len(item.pairs)
            error = next((result for result in own if isinstance(result, Exception)), None)
            texts = [] if error else [self._bound()[0].decode(r.ids) for r in own if isinstance(r, FreeAnswer)]
            shared.append(error or Answered(item.pairs, own, texts))
        return shared

    def _bound(self) -> tuple[PromptBuilder, LabelIds | None]:
        """The prompt builder and the labels' ids for the model's tokenizer; the first use loads the model."""
        bound = self._builder
        if bound is None:
            settings = self.settings
            builder = settings.prompt.bind(self._shim.engine.loaded.tokenizer, self.schema, settings.negative_prompt)
            prompts = [label.prompt for label in self.schema]
            if settings.negative_prompt is not None:
                prompts.append(settings.negative_prompt)
            # Two threads that come here first make the same twice, and either is good.
            self._builder = bound = (builder, builder.label_ids(prompts) if prompts else None)
            if settings.decoding == "constrained" and settings.negative_prompt is None and len(self.schema) == 1:
                warnings.warn(
                    "There is one label and no negative label (no_relation is null), so every pair gets the label with "
                    "the score 1.0. Give a negative label or a second label.",
                    RelxWarning,
                    stacklevel=2,
                )
        return bound
