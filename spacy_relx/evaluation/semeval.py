"""The official score of SemEval-2010 Task 8.

Source: Hendrickx et al. 2010, https://aclanthology.org/S10-1006/, and the rules in the scorer's README: macro-averaged
F1 of the nine base relations with directionality taken into account, Other left out.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from spacy_relx.errors import DataError
from spacy_relx.evaluation.counts import Counts
from spacy_relx.evaluation.metrics import Decision

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from spacy_relx.evaluation.records import PairRecord, RunInfo

OTHER = "Other"
_LABEL = re.compile(r"(?P<base>[A-Za-z-]+)\((?P<direction>e1,e2|e2,e1)\)")


def official_counts(key: Mapping[str, str], answers: Mapping[str, str]) -> dict[str, Counts]:
    """Count each base relation of the key.

    A relation with the wrong direction is a wrong answer for its base relation: it lowers precision and recall. A
    sentence without an answer counts as Other.

    Args:
        key: The right label by sentence.
        answers: The answered label by sentence; sentences may be missing.

    Raises:
        DataError: If a label of the key is none of the task's, or an answer belongs to no sentence of the key.
    """
    unknown = answers.keys() - key.keys()
    if unknown:
        raise DataError(f"There is an answer for {sorted(unknown)[0]!r}, which the key lacks. Expected its sentences.")
    hits: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    gold: Counter[str] = Counter()
    for sentence, right in key.items():
        base = _base(right)
        if base is None:
            raise DataError(
                f"The key has {right!r} for {sentence!r}. Expected a label such as Cause-Effect(e1,e2), or {OTHER}."
            )
        said = answers.get(sentence, OTHER)
        gold[base] += 1
        predicted[_base(said) or OTHER] += 1
        hits[base] += said == right
    return {base: Counts(hits[base], predicted[base], gold[base]) for base in sorted(gold) if base != OTHER}


def official_macro_f(key: Mapping[str, str], answers: Mapping[str, str]) -> float:
    """The official score, 0..1: the mean F1 of the key's base relations."""
    counts = official_counts(key, answers)
    return sum(count.f for count in counts.values()) / len(counts) if counts else 0.0


def official_score(info: RunInfo, records: Iterable[PairRecord], decision: Decision | None = None) -> float:
    """The official score of a run on given pairs; an answer outside the schema counts as Other.

    Raises:
        DataError: If the run asked about other pairs, or its labels are not the task's.
    """
    if info.protocol != "given":
        raise DataError(
            f"SemEval's official score is about the given pairs, and this run has the protocol {info.protocol!r}. "
            "Expected a run of --protocol given."
        )
    decision = decision or Decision(negative=info.negative)
    key, answers = {}, {}
    for number, record in enumerate(records):
        name = f"{record.doc}#{number}"
        key[name] = record.gold[0] if record.gold else OTHER
        answers[name] = decision.answer(record) or OTHER
    return official_macro_f(key, answers)


def _base(label: str) -> str | None:
    """The relation without its direction; None if it is no label of the task."""
    if label in (OTHER, "_Other"):
        return OTHER
    match = _LABEL.fullmatch(label)
    return match["base"] if match is not None else None
