"""The pipeline component: pairs to prompts, prompts to the engine, answers to `Doc._.relations`.

`predict` reads a Doc and asks the engine; `set_annotations` writes. What the answers mean is in `answers`, the settings
are checked in `settings`, and how relations lie on a Doc is in `relation`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import srsly
from spacy.language import Language
from spacy.pipeline import Pipe

from spacy_relx import relation as relations
from spacy_relx.answers import Answered, AnswerRules, Pair
from spacy_relx.candidates import EntityPairs, context_text
from spacy_relx.engine.packing import count_tokens
from spacy_relx.engine.types import FreeAnswer, Question, Ranking
from spacy_relx.errors import ConfigError, RelxWarning
from spacy_relx.licences import NOTICE_FILE, add_to_meta, warn_of_name
from spacy_relx.models import EngineShim, engine_shim
from spacy_relx.prompts import GenTunePrompt, PromptBuilder
from spacy_relx.schema import MissingSchema, Schema
from spacy_relx.settings import DEFAULT_CONFIG, Settings, check_entity_types, read_settings, read_threshold
from spacy_relx.trainable import Course, TrainableRelations
from spacy_relx.training.settings import TrainingSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from spacy.tokens import Doc, Span
    from thinc.api import Model

    from spacy_relx.candidates import Context
    from spacy_relx.engine.types import LabelIds

#: Used where neither the component, nor a label, nor the adapter says otherwise.
FALLBACK_THRESHOLD = 0.5

# Gives the context of pairs that a function of the user's own enumerates; one for all, so that it warns once.
_DEFAULT_CANDIDATES = EntityPairs()


@Language.factory(  # type: ignore[untyped-decorator]
    "llama_relation_extractor",
    assigns=["doc._.relations"],
    requires=["doc.ents"],
    default_config=DEFAULT_CONFIG,
    default_score_weights={
        "rel_micro_f": 1.0,
        "rel_micro_p": None,
        "rel_micro_r": None,
        "rel_macro_f": None,
        "rel_per_type": None,
    },
)
def make_relation_extractor(
    nlp: Language,
    name: str,
    model: Any,
    labels: Any,
    candidates: Any,
    prompt: Any,
    decoding: Any,
    scoring: Any,
    threshold: Any,
    top_k: Any,
    no_relation: Any,
    keep_no_relation: Any,
    attr: Any,
    scorer: Any,
    training: Any,
) -> RelationExtractor:
    """Create a relation extractor; no weights are loaded here.

    Raises:
        ConfigError: If a setting cannot be used.
        ExtensionError: If another package owns the extension attribute `attr`.
    """
    # A pipeline that is being loaded carries copies of its files, which replace the ones that the config names.
    loading = name in nlp._meta.get("components", ())
    try:
        settings = read_settings(
            labels=labels,
            prompt=prompt,
            decoding=decoding,
            scoring=scoring,
            threshold=threshold,
            top_k=top_k,
            no_relation=no_relation,
            keep_no_relation=keep_no_relation,
            attr=attr,
            files_may_be_missing=loading,
        )
    except ConfigError as error:
        if isinstance(labels, MissingSchema) or getattr(prompt, "missing_file", None) is not None:
            error.add_note(
                "A saved pipeline brings a copy of its files. Where one is rebuilt with Language.from_config, to be "
                "filled by from_bytes or from_disk, give its meta too: from_config(config, meta=nlp.meta)."
            )
        raise
    if not callable(candidates):
        raise ConfigError(f"candidates is {candidates!r}. Expected a block such as spacy-relx.EntityPairs.v1.")
    if not loading and isinstance(labels, (list, dict)):
        spans_key = getattr(candidates, "spans_key", None)
        check_entity_types(settings.schema, nlp, spans_key)
    notice = engine_shim(model).notice  # refuses the models of other packages
    if notice is not None:
        add_to_meta(nlp._meta, notice)
    relations.register(settings.attr)
    if training is not None and not isinstance(training, TrainingSettings):
        raise ConfigError(f"training is {training!r}. Expected a block such as spacy-relx.Training.v1, or null.")
    return RelationExtractor(
        nlp.vocab,
        model,
        name,
        settings=settings,
        candidates=candidates,
        scorer=scorer,
        training=training,
        learns_labels=labels is None,
    )


@dataclass(frozen=True, slots=True)
class _Prepared:
    """One Doc's questions."""

    pairs: list[Pair]
    questions: list[Question]

    @property
    def n_tokens(self) -> int:
        """Tokens of the Doc's prompt tree, or somewhat more."""
        return count_tokens([question.prompt for question in self.questions])


class RelationExtractor(TrainableRelations, Pipe):  # type: ignore[misc]
    """Finds typed, scored relations between the mentions of a Doc.

    Args:
        vocab: The pipeline's vocabulary.
        model: A thinc model made by one of the registered architectures.
        name: Name of the component in the pipeline.
        settings: Labels, wording and rules.
        candidates: Doc -> ordered (head, tail) pairs.
        scorer: Examples -> scores.
        training: How an adapter is trained; None: with the defaults.
        learns_labels: Whether `initialize` takes the labels from the training data.
    """

    def __init__(
        self,
        vocab: Any,
        model: Model,
        name: str = "llama_relation_extractor",
        *,
        settings: Settings,
        candidates: Callable[..., Iterable[tuple[Span, Span]]],
        scorer: Callable[..., dict[str, Any]] | None = None,
        training: TrainingSettings | None = None,
        learns_labels: bool = False,
    ) -> None:
        self.vocab = vocab
        self.model = model
        self.name = name
        self.settings = settings
        self.candidates = candidates
        self.scorer = scorer
        self.training = training or TrainingSettings()
        self.learns_labels = learns_labels
        self._course = Course()
        self._builder: tuple[PromptBuilder, LabelIds | None] | None = None

    @property
    def cfg(self) -> dict[str, Any]:
        """What spaCy hands on to the scorer."""
        schema = None if isinstance(self.settings.schema, MissingSchema) else self.settings.schema
        return {
            "attr": self.settings.attr,
            "schema": schema,
            "no_relation": self.settings.no_relation,
            "candidate_pairs": self.candidate_pairs,
            "threshold": self.settings.threshold,  # nothing for the scorer; `find-threshold` looks for it
        }

    @cfg.setter
    def cfg(self, value: Mapping[str, Any]) -> None:
        # `spacy find-threshold` sets the threshold of each trial here, beside what it read.
        # What it read is another component's, so only plain settings can be compared.
        now = self.cfg
        for key in ("attr", "schema", "no_relation"):
            if key in value and value[key] != now[key]:
                raise ConfigError(
                    f"cfg was given another {key}. Only threshold can be set here; build a new component."
                )
        self.settings = replace(self.settings, threshold=read_threshold(value.get("threshold")))

    @property
    def schema(self) -> Schema:
        """The labels.

        Raises:
            SchemaError: If they are in a file that does not exist.
        """
        if isinstance(self.settings.schema, MissingSchema):
            self.settings.schema.fail()
        return self.settings.schema

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the positive labels."""
        return () if isinstance(self.settings.schema, MissingSchema) else self.settings.schema.names

    @property
    def label_data(self) -> dict[str, Any]:
        """The schema as plain data."""
        return self.schema.to_dict()

    def __call__(self, doc: Doc) -> Doc:
        """Add relations to one Doc."""
        if self._catches_up:
            return doc
        for _ in self._finish([(doc, self._prepare_or_error(doc))]):
            pass
        return doc

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Add relations to a stream of Docs; each is yielded, in order, as soon as it is answered.

        A Doc that fails goes to the error handler and, as everywhere in spaCy, is not yielded.

        Args:
            stream: The Docs.
            batch_size: Most Docs that are answered together where documents share packs (on a GPU).
        """
        if self._catches_up:
            yield from stream
            return
        pool: list[tuple[Doc, _Prepared | Exception]] = []
        n_tokens = 0
        for doc in stream:
            prepared = self._prepare_or_error(doc)
            pool.append((doc, prepared))
            pools = self._pools()
            if pools and isinstance(prepared, _Prepared):
                n_tokens += prepared.n_tokens
            if not pools or len(pool) >= batch_size or n_tokens >= self._shim.engine.max_pack_tokens:
                yield from self._finish(pool)
                pool, n_tokens = [], 0
        if pool:
            yield from self._finish(pool)

    def predict(self, docs: Iterable[Doc]) -> list[Answered]:
        """Ask about the pairs of some Docs; nothing is written.

        Raises:
            RelxError: If a Doc cannot be answered; the message says why.
        """
        return self.ask(docs)

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

    def candidate_pairs(self, doc: Doc) -> list[tuple[Span, Span]]:
        """The ordered pairs of a Doc that the component asks about."""
        return [(pair.head, pair.tail) for pair in self._pairs(doc)]

    def with_settings(self, **changes: Any) -> RelationExtractor:
        """Return a component with other settings that shares this one's model.

        Args:
            **changes: Fields of `Settings`.
        """
        settings = replace(self.settings, **changes)
        return RelationExtractor(
            self.vocab,
            self.model,
            self.name,
            settings=settings,
            candidates=self.candidates,
            scorer=self.scorer,
            training=self.training,
        )

    def set_annotations(self, docs: Iterable[Doc], answered: Sequence[Answered]) -> None:
        """Write what `predict` found, after thresholds and the rules for symmetric and inverse labels."""
        rules = self.rules
        for doc, answers in zip(docs, answered):
            found, outside = rules.apply(answers)
            setattr(doc._, self.settings.attr, found)
            if self.settings.decoding == "free":
                setattr(doc._, relations.answers_attr(self.settings.attr), outside)

    @property
    def rules(self) -> AnswerRules:
        """The rules by which answers become relations."""
        return AnswerRules(self.schema, self.settings, self.default_threshold)

    @property
    def default_threshold(self) -> float:
        """The threshold of labels that set none: the component's, else the adapter's calibrated one, else 0.5."""
        if self.settings.threshold is not None:
            return self.settings.threshold
        if self._shim.is_loaded:
            metadata = self._shim.engine.loaded.adapter_info.get("metadata") or {}
            if isinstance(metadata.get("threshold"), (int, float)):
                return float(metadata["threshold"])
        return FALLBACK_THRESHOLD

    # Saving and loading

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Save labels, wording and a local adapter, so that the pipeline works on another machine."""
        path = Path(path)
        files = self._shim.adapter_files()  # read first: `path` may be the folder they were loaded from
        path.mkdir(parents=True, exist_ok=True)
        srsly.write_json(path / "settings.json", self._saved())
        if self._shim.notice is not None:
            (path / NOTICE_FILE).write_text(f"{self._shim.notice}\n", encoding="utf8")
            warn_of_name(path.parent / "meta.json")  # spaCy writes it before the components, which do not know it
        else:
            (path / NOTICE_FILE).unlink(missing_ok=True)
        # The folder may hold the adapter of a pipeline that was saved there before; it would win when this is loaded.
        for old in (path / "adapter").glob("*"):
            if old.name not in files:
                old.unlink()
        if files:
            (path / "adapter").mkdir(exist_ok=True)
            for name, content in files.items():
                (path / "adapter" / name).write_bytes(content)
        elif (path / "adapter").is_dir():
            (path / "adapter").rmdir()

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> RelationExtractor:
        """Load what `to_disk` saved; it wins over files that the config names."""
        path = Path(path)
        self._take_saved(srsly.read_json(path / "settings.json"))
        if (path / "adapter").is_dir():
            self._shim.use_adapter((path / "adapter").resolve())
        return self

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """Save as `to_disk` does, to bytes."""
        data: bytes = srsly.msgpack_dumps({"settings": self._saved(), "model": self._shim.to_bytes()})
        return data

    def from_bytes(self, data: bytes, *, exclude: Iterable[str] = ()) -> RelationExtractor:
        """Load what `to_bytes` saved."""
        message = srsly.msgpack_loads(data)
        self._take_saved(message["settings"])
        self._shim.from_bytes(message["model"])
        return self

    def _saved(self) -> dict[str, Any]:
        return {"schema": self.schema.to_dict(), "prompt": self.settings.prompt.to_dict()}

    def _take_saved(self, saved: dict[str, Any]) -> None:
        schema, prompt = Schema.from_dict(saved["schema"]), GenTunePrompt.from_dict(saved["prompt"])
        self.settings = replace(self.settings, schema=schema, prompt=prompt)
        self._builder = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Worker processes are sent pickles. The prompt builder holds a tokenizer of megabytes and is made anew.
        # So is the course of a training run, which ends with the process that trains.
        return _restore, (self.name, {**self.__dict__, "_builder": None, "_course": Course()})

    # From Docs to answers

    @property
    def _shim(self) -> EngineShim:
        return engine_shim(self.model)

    def _pools(self) -> bool:
        """Whether documents share packs. On a processor they never do: a document's scores are then always the same."""
        shim = self._shim
        return shim.is_loaded and shim.engine.device.type != "cpu" and not shim.deterministic

    def _finish(self, pool: list[tuple[Doc, _Prepared | Exception]]) -> Iterator[Doc]:
        """Answer and annotate Docs together; the ones that fail go to the error handler one by one."""
        handle_error = self.get_error_handler()
        good = [prepared for _, prepared in pool if isinstance(prepared, _Prepared)]
        answered: Iterator[Answered | Exception]
        try:
            answered = iter(self._answer(good))
        except Exception as error:
            # Which Doc is to blame is found by asking about each alone.
            answered = iter([error] if len(good) == 1 else [self._answer_or_error(prepared) for prepared in good])
        for doc, prepared in pool:
            outcome = next(answered) if isinstance(prepared, _Prepared) else prepared
            if not isinstance(outcome, Exception):
                try:
                    self.set_annotations([doc], [outcome])
                except Exception as error:
                    outcome = error
            if isinstance(outcome, Exception):
                handle_error(self.name, self, [doc], outcome)
            else:
                yield doc

    def _prepare_or_error(self, doc: Doc) -> _Prepared | Exception:
        try:
            return self._prepare(doc)
        except Exception as error:
            return error

    def _answer_or_error(self, prepared: _Prepared) -> Answered | Exception:
        try:
            return self._answer([prepared])[0]
        except Exception as error:
            return error

    def _prepare(self, doc: Doc, spans: Sequence[tuple[Span, Span]] | None = None, use_types: bool = True) -> _Prepared:
        pairs = self._pairs(doc, spans, use_types)
        if not pairs:
            return _Prepared([], [])
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
        return _Prepared(pairs, questions)

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

    def _answer(self, prepared: list[_Prepared], top_k: int | None = None) -> list[Answered]:
        questions = [question for item in prepared for question in item.questions]
        results: list[Ranking] | list[FreeAnswer] = []
        texts: list[str] = []
        if questions:
            builder, labels = self._bound()
            engine = self._shim.engine
            if self.settings.decoding == "free" or labels is None:
                results = engine.decode(
                    [question.prompt for question in questions],
                    stop_ids=builder.stop_ids,
                    max_new_tokens=self.settings.prompt.max_new_tokens,
                )
                texts = [builder.decode(result.ids) for result in results]
            else:
                top_k = self.settings.top_k if top_k is None else top_k
                results = engine.rank(questions, labels, top_k=top_k, scoring=self.settings.scoring)
        answered, start = [], 0
        for item in prepared:
            stop = start + len(item.pairs)
            answered.append(Answered(item.pairs, results[start:stop], texts[start:stop]))
            start = stop
        return answered

    def _bound(self) -> tuple[PromptBuilder, LabelIds | None]:
        """The prompt builder and the labels' ids for the model's tokenizer; the first use loads the model."""
        if self._builder is None:
            settings = self.settings
            builder = settings.prompt.bind(self._shim.engine.loaded.tokenizer, self.schema, settings.negative_prompt)
            prompts = [label.prompt for label in self.schema]
            if settings.negative_prompt is not None:
                prompts.append(settings.negative_prompt)
            self._builder = (builder, builder.label_ids(prompts) if prompts else None)
            if settings.decoding == "constrained" and settings.negative_prompt is None and len(self.schema) == 1:
                warnings.warn(
                    "There is one label and no negative label (no_relation is null), so every pair gets the label with "
                    "the score 1.0. Give a negative label or a second label.",
                    RelxWarning,
                    stacklevel=2,
                )
        return self._builder


def _restore(name: str, state: dict[str, Any]) -> RelationExtractor:
    component = RelationExtractor.__new__(RelationExtractor)
    component.name = name
    component.__dict__.update(state)
    return component
