"""A few annotated Docs, and pipelines that learn them with the tiny random Llama."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import spacy
from spacy.tokens import DocBin
from thinc.api import Adam, Config
from tiny import FACTORY, PATTERNS, model_block

from spacy_relx.engine.types import Ranking
from spacy_relx.readers import example_of
from spacy_relx.relation import Relation, register

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from spacy.language import Language
    from spacy.tokens import Doc
    from spacy.training import Example

    from spacy_relx.pipeline import RelationExtractor
    from spacy_relx.training.session import TrainingSession

LABELS = ["based in", "founded by", "works for"]
LESSONS: dict[str, list[tuple[str, str, str]]] = {
    "Steve Jobs founded Apple in Cupertino.": [
        ("Apple", "founded by", "Steve Jobs"),
        ("Apple", "based in", "Cupertino"),
    ],
    "Ada Lovelace works for Apple.": [("Ada Lovelace", "works for", "Apple")],
    "Apple moved to Cupertino.": [("Apple", "based in", "Cupertino")],
    "Steve Jobs met Ada Lovelace.": [],
}
#: All ordered pairs become rows, so that nothing is left to draw.
EVERYTHING = {"@misc": "spacy-relx.Mixture.v1", "negatives": None, "negatives_alone": None}


@cache
def annotator() -> Language:
    """Gives texts their entities and sentences."""
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe("entity_ruler").add_patterns(PATTERNS)
    return nlp


def annotated(lessons: Mapping[str, Sequence[tuple[str, str, str]]] | None = None) -> list[Doc]:
    """Docs with gold entities and relations."""
    register()
    nlp, docs = annotator(), []
    for text, triples in (LESSONS if lessons is None else lessons).items():
        doc = nlp(text)
        by_text = {entity.text: entity for entity in doc.ents}
        doc._.relations = [Relation(by_text[head], by_text[tail], label) for head, label, tail in triples]
        docs.append(doc)
    return docs


def examples(docs: Iterable[Doc] | None = None) -> list[Example]:
    return [example_of(doc) for doc in (annotated() if docs is None else docs)]


def write_corpus(path: Path, docs: Iterable[Doc] | None = None) -> Path:
    DocBin(docs=annotated() if docs is None else docs, store_user_data=True).to_disk(path)
    return path


def training_block(**settings: Any) -> dict[str, Any]:
    return {"@misc": "spacy-relx.Training.v1", "rank": 4, "alpha": 8, "mixture": EVERYTHING} | settings


def learner(base: Path | str, *, model: dict[str, Any] | None = None, training: Any = None, **config: Any) -> Language:
    """A pipeline whose relation extractor is to learn; nothing is loaded. Entities come with the examples."""
    nlp = spacy.blank("xx")  # whose tokenizer is made at once
    defaults = {"model": model_block(base, **(model or {})), "labels": LABELS, "threshold": 0.0}
    nlp.add_pipe(FACTORY, config=defaults | {"training": training_block(**(training or {}))} | config)
    return nlp


def part(nlp: Language) -> RelationExtractor:
    component: Any = nlp.get_pipe(FACTORY)
    return component


def session(nlp: Language) -> TrainingSession:
    """The adapter in training."""
    training = part(nlp)._shim.training
    assert training is not None
    return training


def masters(nlp: Language) -> dict[str, Any]:
    return {name: master.clone() for name, master in session(nlp).weights.masters.items()}


def scores(nlp: Language, texts: Iterable[str] = tuple(LESSONS)) -> dict[tuple[str, str, str, str], float]:
    """(text, head, tail, label) -> probability, for all labels of all pairs."""
    component, found = part(nlp), {}
    docs = list(annotator().pipe(texts))
    names = [*component.labels, "no relation"]
    for doc, answered in zip(docs, component.ask(docs, top_k=len(names))):
        for pair, ranking in zip(answered.pairs, answered.results):
            assert isinstance(ranking, Ranking)
            for score in ranking.scores:
                place = (doc.text, pair.head.text, pair.tail.text, names[score.label])
                found[place] = math.exp(score.log_prob)
    return found


def adam(learn_rate: float = 0.01, **settings: Any) -> Adam:
    return Adam(learn_rate, **{"L2": 0.0, "use_averages": False} | settings)


def train_config(nlp: Language, train: Path, dev: Path | None = None, **training: Any) -> Config:
    """The pipeline's config with a training block for spaCy's loop: one Doc a batch, and no draws but the order."""
    config = nlp.config.copy()
    config["corpora"] = {
        name: {"@readers": "spacy-relx.DocBin.v1", "path": str(path), "gold_entities": True, "limit": 0}
        for name, path in (("train", train), ("dev", dev or train))
    }
    config["training"] |= {
        "max_steps": 11,
        "eval_frequency": 3,
        "patience": 0,
        "dropout": 0.0,
        "optimizer": {"@optimizers": "Adam.v1", "learn_rate": 0.01, "L2": 0.0, "use_averages": False},
        "batcher": {"@batchers": "spacy.batch_by_sequence.v1", "size": 2},
        "before_update": {"@callbacks": "relx-tests.before_update.v1"},
    } | training
    return config


#: Called before each update of a run with `train_config`; a test puts its own in and takes it out.
BEFORE_UPDATE: list[Callable[[Language, dict[str, Any]], None]] = []


@spacy.registry.callbacks("relx-tests.before_update.v1")
def make_before_update() -> Callable[[Language, dict[str, Any]], None]:
    def before_update(nlp: Language, info: dict[str, Any]) -> None:
        for call in BEFORE_UPDATE:
            call(nlp, info)

    return before_update
