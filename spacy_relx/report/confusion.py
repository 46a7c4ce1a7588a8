"""What was answered where: gold labels against answers, with the ways of not answering kept apart."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spacy_relx.evaluation.records import PairRecord

NO_RELATION = "(no relation)"
NO_ANSWER = "(no answer)"
OUTSIDE = "(outside the schema)"
NOT_ASKED = "(never asked)"
SECOND = "(another gold label hit)"
OTHERS = "(all other labels)"

#: Columns that are no label, in the order in which they are shown.
SPECIAL = (NO_ANSWER, OUTSIDE, SECOND, NOT_ASKED)


@dataclass(frozen=True, slots=True)
class Table:
    """A part of the matrix that fits a page.

    Attributes:
        rows: Gold labels, with `OTHERS` and `NO_RELATION` where they occur.
        columns: Answers, with `OTHERS` and the `SPECIAL` ones that occur.
        counts: A row for each gold label.
        n_labels: How many labels the whole matrix has.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    n_labels: int


def confusion_counts(records: Iterable[PairRecord]) -> Counter[tuple[str, str]]:
    """Count (gold label, answer).

    A pair with several gold labels counts once for each, so a row's sum is the number of gold labels of that name. One
    that was not answered while another gold label of the pair was stands under `SECOND`. Negative pairs that drew no
    answer are the cell (`NO_RELATION`, `NO_ANSWER`).
    """
    counts: Counter[tuple[str, str]] = Counter()
    for record in records:
        answer = _answer_of(record)
        for gold in record.gold or (NO_RELATION,):
            is_second = record.gold and answer in record.gold and gold != answer
            counts[gold, SECOND if is_second else answer] += 1
    return counts


def confusion_table(counts: Counter[tuple[str, str]], *, max_labels: int = 20) -> Table:
    """Cut the matrix down to the labels that take part in most confusions; the others share one row and one column."""
    weight: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for (gold, answer), n in counts.items():
        for label in {gold, answer} - {NO_RELATION, *SPECIAL}:
            size[label] += n
            weight[label] += n if gold != answer else 0
    kept = sorted(size, key=lambda label: (-weight[label], -size[label], label))[:max_labels]
    shown = tuple(sorted(kept, key=lambda label: (-size[label], label)))
    folded: Counter[tuple[str, str]] = Counter()
    for (gold, answer), n in counts.items():
        row = gold if gold in shown or gold == NO_RELATION else OTHERS
        column = answer if answer in shown or answer in SPECIAL else OTHERS
        # Right answers and confusions among the labels that are not shown are told apart nowhere but in the CSV.
        folded[row, column] += n
    rows = (*shown, *(label for label in (OTHERS, NO_RELATION) if any(row == label for row, _ in folded)))
    columns = (*shown, *(label for label in (OTHERS, *SPECIAL) if any(column == label for _, column in folded)))
    matrix = tuple(tuple(folded[row, column] for column in columns) for row in rows)
    return Table(rows, columns, matrix, len(size))


def _answer_of(record: PairRecord) -> str:
    if not record.enumerated:
        return NOT_ASKED
    if record.answer is None:
        return NO_ANSWER
    return record.answer if record.in_schema else OUTSIDE
