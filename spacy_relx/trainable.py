"""The trainable side of the component: what spaCy's training loop calls, from labels in the data to updates.

Rows, packs, gradients and checkpoints are made in `training`; here they meet Examples and spaCy's conventions.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from spacy.training import validate_examples
from spacy.util import create_default_optimizer, resolve_dot_names

from spacy_relx.errors import ConfigError, DataError, RelxWarning, SchemaError
from spacy_relx.evaluation.counts import negative_labels
from spacy_relx.label_set import Schema, take_negative
from spacy_relx.relation import is_annotated
from spacy_relx.schema import parse_labels
from spacy_relx.schema_config import make_labels
from spacy_relx.training.contexts import Settler
from spacy_relx.training.demonstrations import Demonstrations
from spacy_relx.training.groups import chunks, rng_for, rows
from spacy_relx.training.sentences import Skipped, read_contexts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from spacy.language import Language
    from spacy.tokens import Doc
    from spacy.training import Example

    from spacy_relx.settings import Settings
    from spacy_relx.shim import EngineShim
    from spacy_relx.training.contexts import AnnotatedContext
    from spacy_relx.training.replay import Replay
    from spacy_relx.training.rows import RowGroup
    from spacy_relx.training.session import TrainingSession
    from spacy_relx.training.settings import TrainingSettings

_log = logging.getLogger("spacy_relx")
_SOURCED = (
    "spaCy initialises no component that has a `source`: give it a factory, and the trained adapter in its model block."
)


@dataclass
class Course:
    """What a training run knows beside the weights.

    Attributes:
        demonstrations: The corpus to draw them from, where the mixture wants any.
        seen: How often each context was trained on, which is its epoch.
        open_checkpoint: What the first update does first. Who only looks at the pipeline (`debug data`, `init labels`)
            is not refused for the checkpoint of another run.
        replay: The way through what an earlier, killed run has done.
        n_relations: Gold relations that `initialize` saw; None where it was not called, or with no data.
        settle: Leaves out of a context what other Docs of the same text say more about.
        loss: Of the step so far.
        warned: Whether it was said that Docs without annotations teach nothing.
    """

    demonstrations: Demonstrations | None = None
    seen: Counter[str] = field(default_factory=Counter)
    open_checkpoint: Callable[[], Replay] | None = None
    replay: Replay | None = None
    n_relations: int | None = None
    settle: Callable[[AnnotatedContext], AnnotatedContext] | None = None
    loss: float = 0.0
    warned: bool = False


class TrainableRelations:
    """What makes a relation extractor trainable by `spacy train`.

    Only a LoRA adapter is trained: a new one, or the one that the model block names.
    """

    name: str
    model: Any
    settings: Settings
    training: TrainingSettings
    #: Whether the config left the labels open, so that they come from the data.
    learns_labels: bool
    _builder: Any
    _course: Course

    if TYPE_CHECKING:

        @property
        def schema(self) -> Schema: ...  # noqa: D102

        @property
        def _shim(self) -> EngineShim: ...

    @property
    def is_trainable(self) -> bool:
        """True: an adapter can be trained."""
        return True

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: object = None,  # spaCy reads this annotation at run time, where only built-in names are known
    ) -> None:
        """Take the labels from the data, where the config names none, and check the data; no weights are loaded.

        Args:
            get_examples: Gives the training examples: reference Docs with entities and relations.
            nlp: The pipeline.
            labels: What `spacy init labels` wrote, a schema as plain values.

        Raises:
            DataError: If a label is not in the schema, or a relation points outside the Doc's mentions.
            SchemaError: If `labels` is no schema.
        """
        docs = [example.reference for example in get_examples()]
        if labels is not None:
            if not isinstance(labels, dict):
                raise SchemaError(f"initialize.components.{self.name}.labels is {labels!r}. Expected a schema's JSON.")
            self._use_schema(parse_labels(Schema.from_dict(labels), no_relation=self.settings.no_relation))
        elif self.learns_labels and (found := self._labels_of(docs)):
            # These go to the component's own file, never into a config, so they may hold whatever data hold.
            self._use_schema(take_negative(Schema(make_labels(found)), self.settings.no_relation))
        self._course = Course(n_relations=sum(len(self._gold(doc)) for doc in docs))
        if not self._course.n_relations:
            return  # a pipeline may be initialised for other components' sake; `update` would refuse
        self._shim.end_training()
        skipped = Skipped()
        contexts = list(read_contexts(self, docs, skipped))  # type: ignore[arg-type]
        self._course.settle = Settler(contexts)
        if skipped:
            _log.warning("%s: of the gold relations\n%s", self.name, skipped)
        if self.training.mixture.examples is not None:
            self._course.demonstrations = Demonstrations(map(self._course.settle, contexts))
        if self.training.checkpoint is not None:
            self._course.open_checkpoint = self._opens_checkpoint(contexts, nlp)

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Any = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Add the gradient of some examples, in packs, and take a step if there is an optimiser.

        Args:
            examples: Reference Docs with entities and relations.
            drop: Share of each layer's inputs that the adapter does not see.
            sgd: A thinc optimiser; None or False: gradients add up until `finish_update`.
            losses: Gets the mean loss of a label token, added to what is there under the component's name.

        Raises:
            DataError: If there is nothing to learn from, or the data does not fit the labels.
            ConfigError: If demonstrations are to be drawn, and the component was not initialised with data.
            TrainingError: If the loss is not finite, or `training.checkpoint` holds the checkpoint of another run.
        """
        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        examples = list(examples)
        validate_examples(examples, f"{type(self).__name__}.update")
        docs = self._annotated(examples)
        if not docs:
            return losses
        if self._course.open_checkpoint is not None:
            self._course.replay, self._course.open_checkpoint = self._course.open_checkpoint(), None
        session = self._session()
        if not self._catches_up:
            groups = list(self._rows(docs, draw=True))
            loss, n_label_tokens = session.add(session.encoder(self._template_kwargs), groups, drop)
            losses[self.name] += loss / max(n_label_tokens, 1)
            self._course.loss += loss / max(n_label_tokens, 1)
        elif self._course.replay is not None and not self._course.loss:
            self._course.loss = self._course.replay.loss()  # of the whole step, told once
            losses[self.name] += self._course.loss
        if sgd not in (None, False):
            self.finish_update(sgd)
        return losses

    def get_loss(self, examples: Iterable[Example], scores: Any = None) -> tuple[float, None]:
        """The mean loss of a label token on some examples, without dropout; nothing is learned.

        Args:
            examples: Reference Docs with entities and relations.
            scores: Not needed: the loss comes from the model, not from predictions.

        Returns:
            The loss, and None where other components give a gradient: it goes to the adapter in `update`.
        """
        docs = self._annotated(list(examples))
        if not docs:
            return 0.0, None
        session = self._session()
        groups = list(self._rows(docs, draw=False))
        loss, n_label_tokens = session.loss(session.encoder(self._template_kwargs), groups)
        return loss / max(n_label_tokens, 1), None

    def finish_update(self, sgd: Any) -> None:
        """Let an optimiser change the adapter by the gradients that were added."""
        session, replay = self._shim.training, self._course.replay
        if session is None:
            return  # no Doc with relations has come
        loss, self._course.loss = self._course.loss, 0.0
        if replay is not None and replay.is_running:
            replay.step(session, sgd, self._course.seen)
            return
        self.model.finish_update(sgd)
        if replay is not None:
            replay.keep(session, sgd, self._course.seen, loss)

    def create_optimizer(self) -> Any:
        """Create spaCy's default optimiser."""
        return create_default_optimizer()

    def use_params(self, params: Mapping[Any, Any]) -> Iterator[None]:
        """Compute with averaged parameters until the generator is resumed; spaCy calls it so."""
        with self.model.use_params(params):
            yield

    def score(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        """Score predictions, as every component does; a run that goes on repeats the scores that it had."""
        replay = self._course.replay
        if replay is not None and replay.is_running:
            return replay.scores()
        scores: dict[str, Any] = super().score(examples, **kwargs)  # type: ignore[misc]
        if replay is not None and self._shim.training is not None:
            replay.note(self._shim.training, scores)
        return scores

    @property
    def _catches_up(self) -> bool:
        """Whether a run that goes on is still where it has been: predictions are not needed, scores are known."""
        return self._course.replay is not None and self._course.replay.is_running

    def _opens_checkpoint(self, contexts: Iterable[AnnotatedContext], nlp: Language | None) -> Callable[[], Replay]:
        from spacy_relx.training.replay import Replay, run_identity  # imports torch

        config = nlp.config.interpolate() if nlp is not None else {}
        loop = config.get("training", {})
        identity = run_identity(
            self.training,
            self.settings,
            contexts,
            loop=loop,
            model=self._shim.spec.to_dict(),
            evaluation=() if nlp is None else self._evaluation_data(nlp, config),
        )
        return partial(Replay, self.training, identity, loop.get("score_weights", {}))

    def _evaluation_data(self, nlp: Language, config: Mapping[str, Any]) -> list[object]:
        """What spaCy's loop evaluates on: texts, the mentions to ask about, and gold relations."""
        try:
            (corpus,) = resolve_dot_names(config, [config["training"]["dev_corpus"]])
            examples = list(corpus(nlp))
        except Exception:
            return []  # a loop of somebody's own; spaCy's fails by itself where its corpus cannot be read
        return [
            (
                example.reference.text,
                [(span.start_char, span.end_char, span.label_) for span in example.predicted.ents],
                [(r.head.start_char, r.head.end_char, r.label, r.tail.start_char, r.tail.end_char) for r in gold],
            )
            for example in examples
            for gold in (self._gold(example.reference),)
        ]

    def _use_schema(self, schema: Schema) -> None:
        self.settings = replace(self.settings, schema=schema)
        self._builder = None

    def _labels_of(self, docs: Iterable[Doc]) -> list[str]:
        """The positive labels of the gold relations, sorted."""
        negatives = negative_labels(self.settings.no_relation)
        return sorted({r.label for doc in docs for r in self._gold(doc) if r.label.lower() not in negatives})

    def _gold(self, doc: Doc) -> Sequence[Any]:
        gold: Sequence[Any] = getattr(doc._, self.settings.attr)
        return gold

    @property
    def _template_kwargs(self) -> Mapping[str, Any]:
        return self.settings.prompt.template_kwargs or {}

    def _annotated(self, examples: Sequence[Example]) -> list[Doc]:
        """The Docs whose relations somebody annotated, be it as none; what nobody looked at teaches nothing.

        Raises:
            DataError: If the corpus has no relations at all.
        """
        self._check_gold(examples)
        docs = [e.reference for e in examples if is_annotated(e.reference, self.settings.attr)]
        if len(docs) < len(examples) and not self._course.warned:
            self._course.warned = True
            warnings.warn(
                f"Docs without annotated relations came to {self.name!r}, which learns nothing from them. Set "
                f"`doc._.{self.settings.attr} = []` where none hold; to train other components only, put {self.name!r} "
                "into training.frozen_components.",
                RelxWarning,
                stacklevel=3,
            )
        return docs

    def _check_gold(self, examples: Iterable[Example]) -> None:
        """Refuse what there is nothing to learn from; after `nlp.initialize()` without data, updates decide."""
        if self._course.n_relations != 0:
            return
        if not any(self._gold(example.reference) for example in examples):
            raise DataError(
                f"The training corpus has no gold relations, so {self.name!r} cannot be trained. Expected Docs whose "
                f"`._.{self.settings.attr}` is set (`spacy relx convert` makes them); to train other components beside "
                f"it, put {self.name!r} into training.frozen_components."
            )
        self._course.n_relations = None

    def _session(self) -> TrainingSession:
        self._check_demonstrations()
        if self._course.n_relations is None and self.training.checkpoint is not None and self._shim.training is None:
            warnings.warn(
                f"{self.name!r} was not initialised with training data, so no checkpoint is written to "
                f"{self.training.checkpoint}, and a run that is killed cannot go on. {_SOURCED}",
                RelxWarning,
                stacklevel=2,
            )
        return self._shim.start_training(self.training)

    def _check_demonstrations(self) -> None:
        """Refuse to draw demonstrations from data that nobody gave."""
        wanted = self.training.mixture.examples
        if wanted is None or self._course.demonstrations is not None:
            return
        if any(wanted):
            raise ConfigError(
                f"training.mixture.examples is {list(wanted)}, and {self.name!r} was not initialised with training "
                f"data, from which it could draw them. {_SOURCED} Or set training.mixture.examples to null, for the "
                "prompt's own examples."
            )
        self._course.demonstrations = Demonstrations(())

    def _rows(self, docs: Iterable[Doc], *, draw: bool) -> Iterator[RowGroup]:
        """The rows of some Docs; `draw`: with the next draws of each context."""
        settle = self._course.settle
        read = read_contexts(self, docs)  # type: ignore[arg-type]
        contexts = [context if settle is None else settle(context) for context in read]
        for shared in chunks(contexts, self.training.mixture.texts):
            yield from self._groups(shared, self._course.seen[shared[0].text])
            if draw:
                self._course.seen.update(context.text for context in shared)

    def _groups(self, contexts: Sequence[AnnotatedContext], epoch: int) -> list[RowGroup]:
        mixture, settings = self.training.mixture, self.settings
        return rows(
            contexts,
            self.schema,
            settings.prompt,
            settings.negative_prompt,
            mixture,
            rng_for(mixture, epoch, contexts[0].text),
            self._course.demonstrations,
        )
