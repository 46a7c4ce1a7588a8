"""The component as a user has it: Docs in, relations out, and where its time goes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from spacy.tokens import Doc, DocBin, Span
from thinc.api import Model

from spacy_relx.benchmark.engine_run import Contestant, measure, synchroniser
from spacy_relx.benchmark.parts import Clock, watch_model
from spacy_relx.benchmark.rivals import answer_tokens, generate, some_pairs
from spacy_relx.errors import ConfigError
from spacy_relx.pipeline import RelationExtractor
from spacy_relx.shim import EngineShim, engine_shim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from spacy.vocab import Vocab

    from spacy_relx.benchmark.documents import Document
    from spacy_relx.engine.types import LabelIds, Question


def to_docs(documents: Iterable[Document], vocab: Vocab) -> list[Doc]:
    """Documents as Docs of one sentence with entities."""
    docs = []
    for document in documents:
        n_words = len(document.words)
        doc = Doc(vocab, words=list(document.words), sent_starts=[i == 0 for i in range(n_words)])
        doc.ents = [Span(doc, mention.start, mention.end, mention.label) for mention in document.mentions]
        docs.append(doc)
    return docs


def read_docs(path: Path, vocab: Vocab, limit: int | None = None) -> list[Doc]:
    """The first Docs of a `.spacy` file that have two entities.

    Raises:
        ConfigError: If there are none.
    """
    docs: list[Doc] = []
    for doc in DocBin().from_disk(path).get_docs(vocab):
        if limit is not None and len(docs) >= limit:
            break
        if len(doc.ents) > 1:
            docs.append(doc)
    if not docs:
        raise ConfigError(f"{path} has no document with two entities (doc.ents), so there is nothing to ask about.")
    return docs


class WatchedEngine:
    """An engine that remembers what it is asked, and tells a clock when it works.

    Args:
        engine: The engine that answers.
        clock: Told "engine" while it does.
    """

    def __init__(self, engine: Any, clock: Clock | None = None) -> None:
        self._engine = engine
        self._clock = clock
        self.calls: list[list[Question]] = []
        self.labels: LabelIds | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def rank(self, questions: Sequence[Question], labels: LabelIds, **settings: Any) -> Any:
        """Answer as the engine does."""
        self.calls.append(list(questions))
        self.labels = labels
        if self._clock is None:
            return self._engine.rank(questions, labels, **settings)
        with self._clock.span("trees and search"):
            return self._engine.rank(questions, labels, **settings)


def with_engine(component: RelationExtractor, engine: Any) -> RelationExtractor:
    """A component with the same settings that asks another engine."""
    shim = EngineShim(engine_shim(component.model).spec)
    shim._engine = engine
    model: Any = Model("relx_engine", _refuse, shims=[shim])
    return RelationExtractor(
        component.vocab, model, component.name, settings=component.settings, candidates=component.candidates
    )


def benchmark(
    component: RelationExtractor,
    docs: Sequence[Doc],
    *,
    rounds: int,
    rivals: Sequence[str] = (),
    rival_pairs: int = 8,
    batch: int = 8,
    progress: Callable[[str], object] | None = None,
) -> dict[str, Any]:
    """Measure a component on some Docs.

    Args:
        component: The component; its model is loaded here.
        docs: The Docs, with entities.
        rounds: Timed rounds.
        rivals: Names of `spacy_relx.benchmark.rivals.NAMES`.
        rival_pairs: Pairs that the rivals, which are slow, are given.
        batch: Prompts at a time of the rival "batched".
        progress: Told what is about to be run.

    Raises:
        ConfigError: If there is nothing to ask about, or the component does not rank labels.
    """
    if component.settings.decoding != "constrained" or not len(component.schema):
        raise ConfigError("The component writes free answers. Expected decoding='constrained' and labels to measure.")
    if progress is not None:
        progress("load the model")
    start = time.perf_counter()
    engine: Any = engine_shim(component.model).computing_engine
    load_seconds = time.perf_counter() - start
    watched = WatchedEngine(engine)
    component = with_engine(component, watched)
    start = time.perf_counter()
    component(docs[0])
    first_seconds = time.perf_counter() - start

    def run() -> None:
        watched.calls.clear()
        for _ in component.pipe(docs):
            pass

    run()
    calls, labels = list(watched.calls), watched.labels
    if labels is None:
        raise ConfigError(
            "The documents have no pair that the labels' entity types allow. Use other labels or other documents."
        )
    few, n_new = some_pairs(calls, rival_pairs), answer_tokens(labels)
    sizes = {"card": 1, "batched": batch}
    beside = {
        name: Contestant(
            lambda size=sizes[name]: generate(engine.loaded, few, n_new, size),  # type: ignore[misc]
            len(few),
            facts={"batch": sizes[name]},
        )
        for name in rivals
    }
    result = measure(
        engine,
        calls,
        labels,
        rounds=rounds,
        n_documents=len(docs),
        rivals=beside,
        ours=run,
        parts=lambda: time_parts(component, engine, docs),
        progress=progress,
    )
    return {"load_seconds": round(load_seconds, 3), "first_answer_seconds": round(first_seconds, 3), **result}


def time_parts(component: RelationExtractor, engine: Any, docs: Sequence[Doc]) -> dict[str, float]:
    """Seconds of the parts of one run over some Docs, Docs in, relations out."""
    clock = Clock(synchroniser(engine.device.type))
    component = with_engine(component, WatchedEngine(engine, clock))
    with watch_model(engine.loaded.model, clock):
        for doc in docs:
            with clock.span("pairs, prompts, tokens"):
                answered = component.ask([doc])
            with clock.span("results"):
                component.set_annotations([doc], answered)
    return dict(clock.seconds)


def _refuse(model: Any, request: Any, is_train: bool) -> Any:
    raise ConfigError("A component under measurement asks its engine directly.")
