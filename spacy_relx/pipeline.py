"""The pipeline component: pairs to prompts, prompts to the engine, answers to `Doc._.relations`.

`predict` reads a Doc and asks the engine (`asking`); `set_annotations` writes. What the answers mean is in `answers`,
the settings are checked in `settings`, how the component is saved is in `saving` and how it learns in `trainable`, and
how relations lie on a Doc is in `relation`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from spacy.language import Language
from spacy.pipeline import Pipe

from spacy_relx import relation as relations
from spacy_relx.answers import Answered, AnswerRules
from spacy_relx.asking import AskingRelations, Prepared
from spacy_relx.engine.packing import PACKS_A_POOL
from spacy_relx.errors import ConfigError
from spacy_relx.licences import add_to_meta
from spacy_relx.saving import SavedRelations
from spacy_relx.schema import MissingSchema
from spacy_relx.settings import DEFAULT_CONFIG, Settings, check_entity_types, read_settings, read_threshold
from spacy_relx.shim import engine_shim
from spacy_relx.trainable import Course, TrainableRelations
from spacy_relx.training.settings import TrainingSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from spacy.tokens import Doc, Span
    from thinc.api import Model

#: Used where neither the component, nor a label, nor the adapter says otherwise.
FALLBACK_THRESHOLD = 0.5


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
    nlp: Any,  # a Language; confection before 1.0 lets pydantic resolve annotations, which knows no such name
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

    Args:
        nlp: The pipeline.
        name: Name of the component in it.
        model: The model that is asked: one of the registered architectures.
        labels: The relations: None for the packaged general label set, a list of names, a mapping of names to settings
            (None for none), or a block `spacy-relx.Schema.v1`.
        candidates: Which pairs are asked about, and how much text around each is read.
        prompt: The wording of the prompts.
        decoding: "constrained", where the answer is one of the labels with its probability, or "free", where it is what
            the model writes, greedily; answers outside the labels are then on `Doc._.relation_answers`.
        scoring: "trie", the product of the renormalised choices along a label's tokens, or "sequence", the label's
            likelihood as a share of that of all labels.
        threshold: Least score of a relation, 0..1, where its label sets none; None: the adapter's calibrated one, else
            0.5.
        top_k: Labels kept for each pair, the negative one counted; at least 1.
        no_relation: The negative label, which the model may answer too; None: every pair has a relation, and scores
            only rank the labels.
        keep_no_relation: Whether negative answers are kept as relations.
        attr: Name of the extension that holds the relations.
        scorer: What `nlp.evaluate` and `spacy train` measure.
        training: How `spacy train` makes an adapter; None: with the defaults.

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
    engine_shim(model).check_use(settings.top_k, settings.scoring, settings.decoding)
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


class RelationExtractor(TrainableRelations, AskingRelations, SavedRelations, Pipe):  # type: ignore[misc]
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
        self._builder = None

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
        pool: list[tuple[Doc, Prepared | Exception]] = []
        n_tokens = 0
        for doc in stream:
            prepared = self._prepare_or_error(doc)
            pool.append((doc, prepared))
            pools = self._pools()
            if pools and isinstance(prepared, Prepared):
                n_tokens += prepared.n_tokens
            if not pools or len(pool) >= batch_size or n_tokens >= self._pool_tokens():
                yield from self._finish(pool)
                pool, n_tokens = [], 0
        if pool:
            yield from self._finish(pool)

    def _pool_tokens(self) -> int:
        """Tokens that Docs are collected for before they are answered."""
        engine = self._shim.engine
        return engine.max_pack_tokens * (PACKS_A_POOL if engine.device.type == "cuda" else 1)

    def predict(self, docs: Iterable[Doc]) -> list[Answered]:
        """Ask about the pairs of some Docs; nothing is written.

        Raises:
            RelxError: If a Doc cannot be answered; the message says why.
        """
        return self.ask(docs)

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

    def _finish(self, pool: list[tuple[Doc, Prepared | Exception]]) -> Iterator[Doc]:
        """Answer and annotate Docs together; the ones that fail go to the error handler one by one."""
        handle_error = self.get_error_handler()
        good = [prepared for _, prepared in pool if isinstance(prepared, Prepared)]
        answered = iter(self._answer_each(good))
        for doc, prepared in pool:
            outcome = next(answered) if isinstance(prepared, Prepared) else prepared
            if not isinstance(outcome, Exception):
                try:
                    self.set_annotations([doc], [outcome])
                except Exception as error:
                    outcome = error
            if isinstance(outcome, Exception):
                handle_error(self.name, self, [doc], outcome)
            else:
                yield doc

    def _prepare_or_error(self, doc: Doc) -> Prepared | Exception:
        try:
            return self._prepare(doc)
        except Exception as error:
            return error
