"""Test sentences that the training data has too: a model that was trained on them has seen their answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spacy_relx.evaluation.metrics import score

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spacy.tokens import Doc

    from spacy_relx.evaluation.metrics import Decision
    from spacy_relx.evaluation.records import PairRecord, RunInfo, Seen


@dataclass(frozen=True, slots=True)
class TrainingSentences:
    """The sentences of some training data.

    Attributes:
        exact: With white space made single.
        alike: Without white space, which tokenisers treat differently, and without case.
    """

    exact: frozenset[str] = frozenset()
    alike: frozenset[str] = frozenset()

    def seen(self, text: str) -> Seen:
        """Say whether a sentence is among them: "exact", "alike", or "" for no."""
        if _exact(text) in self.exact:
            return "exact"
        return "alike" if _alike(text) in self.alike else ""


def training_sentences(docs: Iterable[Doc]) -> TrainingSentences:
    """The sentences of some Docs; a Doc without sentence boundaries is one sentence."""
    texts: set[str] = set()
    for doc in docs:
        sentences = doc.sents if doc.has_annotation("SENT_START") else [doc]
        texts.update(sentence.text for sentence in sentences if sentence.text.strip())
    return TrainingSentences(frozenset(map(_exact, texts)), frozenset(map(_alike, texts)))


def leak_report(
    info: RunInfo, records: Iterable[PairRecord], decision: Decision | None = None
) -> dict[str, Any] | None:
    """Score a run with and without the pairs of sentences that the training data has too.

    Args:
        info: The run.
        records: Its records.
        decision: Thresholds; None: every answer counts.

    Returns:
        None if no sentence was seen in training; else the number of seen sentences, of those that are the same word for
        word, and of their pairs, and micro-F with all sentences and without the seen ones.
    """
    records = list(records)
    seen = [record for record in records if record.seen]
    if not seen:
        return None
    rest = [record for record in records if not record.seen]
    return {
        "n_sentences": len({(record.doc, record.sentence) for record in seen}),
        "n_exact": len({(record.doc, record.sentence) for record in seen if record.seen == "exact"}),
        "n_pairs": len(seen),
        "micro_f": score(info, records, decision).micro.f,
        "micro_f_without": score(info, rest, decision).micro.f,
    }


def _exact(text: str) -> str:
    return " ".join(text.split())


def _alike(text: str) -> str:
    return "".join(text.split()).casefold()
