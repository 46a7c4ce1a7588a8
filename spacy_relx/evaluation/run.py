"""From annotated Docs to records of what the component answered: one function, three protocols.

Owns which pairs are asked about and what a record says. Scores are made from the records, in `metrics`.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from spacy.language import Language

from spacy_relx.data.docs import doc_id
from spacy_relx.engine.types import Ranking
from spacy_relx.errors import ConfigError, DataError
from spacy_relx.evaluation.asked import asked_docs, check_finds_entities, find_component, settings_of
from spacy_relx.evaluation.counts import NEGATIVE_LABELS, negative_labels, normalise_answer
from spacy_relx.evaluation.leaks import TrainingSentences
from spacy_relx.evaluation.records import PROTOCOLS, MentionRecord, PairRecord, Protocol, RunInfo
from spacy_relx.relation import DEFAULT_ATTR, register

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from spacy.tokens import Doc, Span

    from spacy_relx.answers import Answered
    from spacy_relx.evaluation.counts import Place
    from spacy_relx.pipeline import RelationExtractor

    _Pair = tuple[Place, Place]


#: The key of `RunInfo.counts` for gold labels that cannot be answered, each with how often it occurs.
_OUTSIDE = "gold_labels_outside_schema"


@dataclass(frozen=True, slots=True)
class _Gold:
    """The annotations of one Doc.

    Attributes:
        id: Of the document, unique in the run.
        doc: The annotated Doc.
        pairs: Every annotated ordered pair, those without a relation too, with its mentions.
        labels: The positive labels of a pair.
    """

    id: str
    doc: Doc
    pairs: dict[_Pair, tuple[Span, Span]]
    labels: dict[_Pair, tuple[str, ...]]


@dataclass
class _Run:
    """What all documents of a run have in common."""

    component: RelationExtractor
    nlp: Language | None
    protocol: Protocol
    use_types: bool
    attr: str
    train: TrainingSentences
    entity_types: Mapping[str, str]
    negatives: frozenset[str]
    counts: dict[str, Any]
    unknown: Counter[str] = field(default_factory=Counter)


def evaluate(
    pipeline: Language | RelationExtractor,
    docs: Iterable[Doc],
    protocol: Protocol,
    *,
    dataset: str,
    split: str,
    use_types: bool | None = None,
    train: TrainingSentences | None = None,
    entity_types: Mapping[str, str] | None = None,
    attr: str = DEFAULT_ATTR,
    settings: dict[str, Any] | None = None,
    component: RelationExtractor | None = None,
    batch_size: int = 32,
    progress: Callable[[int], None] | None = None,
) -> tuple[RunInfo, Iterator[PairRecord]]:
    """Ask a component about annotated Docs.

    The three protocols are three tasks, and their scores do not belong in one table:

    - `given`: the annotated pairs, those labelled as no relation too, each ordered pair once. These are the published
      evaluation's pairs; its wording and decoding are in `published`.
    - `gold_entities`: the pairs that the component enumerates between the annotated entities.
    - `predicted_entities`: the pairs between the entities that the pipeline itself finds in the text. A predicted
      entity is a gold mention if both begin and end at the same characters; nothing else of it counts, but its type
      does for the strict scores. What is found in part costs every relation of the mention.

    No threshold applies, and enough labels are ranked to have the best relation beside the negative.

    Args:
        pipeline: A pipeline with a relation extractor, or the component alone.
        docs: Docs with gold relations, their ids where `data.doc_id` finds them, else their numbers.
        protocol: Which pairs are asked about.
        dataset: Name of the data set.
        split: "dev", "test", …
        use_types: Whether the labels' entity types limit pairs and answers; None: not with given pairs, where a type
            may give the answer away and the published system knew none.
        train: Sentences of the training data, from `leaks.training_sentences`; records say which they share.
        entity_types: With predicted entities, the data set's names for the pipeline's entity types; types that are
            not here keep their names.
        attr: The extension attribute of the gold relations.
        settings: More for `RunInfo.settings`.
        component: Asked in place of the pipeline's own, such as one that `with_settings` made of it.
        batch_size: Docs that are handed to the component at a time.
        progress: Called after each batch with the number of Docs done.

    Returns:
        The run and its records, which are made as they are asked for. `RunInfo.counts` is complete when they are all
        there. To go on with an earlier run of the same Docs, put into it, before the first record is taken, what it was
        at a call of `progress`: the Docs that were done then are passed over.

    Raises:
        ConfigError: If the pipeline cannot do what the protocol needs.
        DataError: If the protocol is unknown.
    """
    if protocol not in PROTOCOLS:
        raise DataError(f"The protocol is {protocol!r}. Expected one of {', '.join(PROTOCOLS)}.")
    nlp = pipeline if isinstance(pipeline, Language) else None
    component = component or find_component(pipeline)
    if protocol == "predicted_entities":
        check_finds_entities(nlp)
    elif entity_types:
        raise ConfigError(
            f"Entity types are named for the protocol {protocol}. Expected predicted_entities: others take entities "
            "from the data."
        )
    register(attr)
    if use_types is None:
        use_types = protocol != "given"
    negative = component.settings.no_relation
    info = RunInfo(
        dataset=dataset,
        split=split,
        protocol=protocol,
        labels=component.schema.names,
        negative=negative,
        settings={
            **settings_of(component),
            "use_types": use_types,
            **({"entity_types": dict(entity_types)} if entity_types else {}),
            **(settings or {}),
        },
        counts={"n_docs": 0, "n_asked": 0, "n_gold": 0, "n_gold_pairs": 0, "n_not_enumerated": 0, "seconds": 0.0},
    )
    run = _Run(
        component,
        nlp,
        protocol,
        use_types,
        attr,
        train or TrainingSentences(),
        entity_types or {},
        negative_labels(negative),
        info.counts,
    )
    return info, _records(run, info, docs, batch_size, progress)


def _records(
    run: _Run, info: RunInfo, docs: Iterable[Doc], batch_size: int, progress: Callable[[int], None] | None
) -> Iterator[PairRecord]:
    counts, ids = run.counts, Counter[str]()
    run.unknown.update(counts.get(_OUTSIDE, {}))
    top_k = max(run.component.settings.top_k, 2)
    stream = enumerate(docs)
    for number, doc in islice(stream, counts["n_docs"]):
        _unique(_name(number, doc), ids)
    while batch := list(islice(stream, batch_size)):
        start = time.perf_counter()
        golds = [_gold(run, doc, _unique(_name(number, doc), ids)) for number, doc in batch]
        asked = asked_docs(run.nlp, run.protocol, run.entity_types, [gold.doc for gold in golds])
        pairs = [list(gold.pairs.values()) for gold in golds] if run.protocol == "given" else None
        answers = run.component.ask(asked, pairs, top_k=top_k, use_types=run.use_types, pool=True)
        counts["seconds"] += time.perf_counter() - start
        counts["n_docs"] += len(golds)
        for gold, doc, answered in zip(golds, asked, answers):
            yield from _of_document(run, gold, doc, answered)
        if run.unknown:
            # Such labels can only be missed; a schema with other names than the data shows here.
            counts[_OUTSIDE] = dict(run.unknown.most_common())
        if progress is not None:
            progress(counts["n_docs"])
    counts["seconds"] = round(counts["seconds"], 3)
    info.settings["threshold"] = run.component.default_threshold


def _of_document(run: _Run, gold: _Gold, doc: Doc, answered: Answered) -> Iterator[PairRecord]:
    run.counts["n_asked"] += len(answered.pairs)
    done: set[_Pair] = set()
    with_types = run.protocol == "predicted_entities"
    for i, pair in enumerate(answered.pairs):
        key = _key(pair.head, pair.tail)
        if key in done:  # two spans of one place, of different types, in a span group
            continue
        done.add(key)
        scores, answer, in_schema = _read(run, answered, i)
        types = _types(gold.pairs[key]) if with_types and key in gold.labels else None
        yield _record(run, gold, doc, pair.head, pair.tail, scores, answer, in_schema, types)
    for key, (head, tail) in gold.pairs.items():
        if key in done or (key not in gold.labels and run.protocol != "given"):
            continue
        run.counts["n_not_enumerated"] += key in gold.labels
        types = _types((head, tail)) if with_types else None
        yield _record(run, gold, gold.doc, head, tail, None, None, True, types)


def _record(
    run: _Run,
    gold: _Gold,
    doc: Doc,
    head: Span,
    tail: Span,
    scores: tuple[tuple[str, float], ...] | None,
    answer: str | None,
    in_schema: bool,
    gold_types: tuple[str, str] | None,
) -> PairRecord:
    start, end = _sentence(doc, head)
    return PairRecord(
        doc=gold.id,
        text=doc.text,
        head=_mention(head),
        tail=_mention(tail),
        gold=gold.labels.get(_key(head, tail), ()),
        enumerated=scores is not None,
        scores=scores or (),
        answer=answer,
        in_schema=in_schema,
        sentence=(start, end),
        gold_types=gold_types,
        seen=run.train.seen(doc.text[start:end]),
    )


def _read(run: _Run, answered: Answered, i: int) -> tuple[tuple[tuple[str, float], ...], str | None, bool]:
    """Scores, reported answer, and whether the answer is a label."""
    component, result = run.component, answered.results[i]
    negative = component.settings.no_relation
    if isinstance(result, Ranking):
        names = (*component.schema.names, negative or "")
        scores = tuple((names[score.label], score.prob) for score in result.scores)
        best = scores[0][0] if scores else None
        return scores, None if best == negative else best, True
    text = answered.texts[i]
    name, in_schema = component.rules.said(answered.pairs[i], text)
    if not in_schema and normalise_answer(text) in NEGATIVE_LABELS:
        name, in_schema = None, True
    said = name if name is not None else negative or normalise_answer(text)
    return ((said, result.prob),), name, in_schema


def _gold(run: _Run, doc: Doc, name: str) -> _Gold:
    pairs: dict[_Pair, tuple[Span, Span]] = {}
    labels: dict[_Pair, list[str]] = {}
    for relation in getattr(doc._, run.attr):
        key = _key(relation.head, relation.tail)
        pairs.setdefault(key, (relation.head, relation.tail))
        if relation.label.lower() in run.negatives:
            continue
        known = labels.setdefault(key, [])
        if relation.label not in known:
            known.append(relation.label)
        if len(run.component.schema) and not _can_be_answered(run.component, relation.label):
            run.unknown[relation.label] += 1
    run.counts["n_gold"] += sum(map(len, labels.values()))
    run.counts["n_gold_pairs"] += len(labels)
    return _Gold(name, doc, pairs, {key: tuple(found) for key, found in labels.items()})


def _can_be_answered(component: RelationExtractor, label: str) -> bool:
    return label in component.schema or label in component.schema.mirrors


def _key(head: Span, tail: Span) -> _Pair:
    return (head.start_char, head.end_char), (tail.start_char, tail.end_char)


def _types(mentions: tuple[Span, Span]) -> tuple[str, str]:
    return mentions[0].label_, mentions[1].label_


def _mention(span: Span) -> MentionRecord:
    return MentionRecord(span.start_char, span.end_char, span.text, span.label_)


def _sentence(doc: Doc, span: Span) -> tuple[int, int]:
    if not doc.has_annotation("SENT_START"):
        return 0, len(doc.text)
    sentence = doc[span.start].sent
    return sentence.start_char, sentence.end_char


def _name(number: int, doc: Doc) -> str:
    return doc_id(doc) or str(number)


def _unique(name: str, ids: Counter[str]) -> str:
    """A document's id; one that came before gets a number."""
    ids[name] += 1
    return name if ids[name] == 1 else f"{name}#{ids[name]}"
