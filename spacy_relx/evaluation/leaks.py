"""Test sentences that the training data has too: a model that was trained on them has seen their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spacy_relx.evaluation.metrics import score

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spacy.tokens import Doc

    from spacy_relx.evaluation.metrics import Decision
    from spacy_relx.evaluation.records import PairRecord, RunInfo


def sentence_key(text: str) -> str:
    """The form in which sentences are compared: without case and white space, which tokenisers treat differently."""
    return "".join(text.split()).casefold()


def sentence_keys(docs: Iterable[Doc]) -> frozenset[str]:
    """The sentences of some Docs; a Doc without sentence boundaries is one sentence."""
    keys: set[str] = set()
    for doc in docs:
        sentences = doc.sents if doc.has_annotation("SENT_START") else [doc]
        keys.update(sentence_key(sentence.text) for sentence in sentences)
    return frozenset(keys - {""})


def leak_report(
    info: RunInfo, records: Iterable[PairRecord], decision: Decision | None = None
) -> dict[str, Any] | None:
    """Score a run with and without the pairs of sentences that the training data has too.

    Args:
        info: The run.
        records: Its records.
        decision: Thresholds; None: every answer counts.

    Returns:
        None if no sentence was seen in training; else the number of seen sentences and pairs, and micro-F with all
        sentences and without the seen ones.
    """
    records = list(records)
    seen = [record for record in records if record.seen]
    if not seen:
        return None
    rest = [record for record in records if not record.seen]
    return {
        "n_sentences": len({(record.doc, record.sentence) for record in seen}),
        "n_pairs": len(seen),
        "micro_f": score(info, records, decision).micro.f,
        "micro_f_without": score(info, rest, decision).micro.f,
    }
