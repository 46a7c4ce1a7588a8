"""What the scripts that make training rows of many names have in common."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from train_embedded import _wording

from spacy_relx.prompts import clean
from spacy_relx.training.rows import RowGroup

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from random import Random

NONE = "no_relation"

#: What no name may contain: parts of the names that `train_embedded.py` holds out, and what says the same.
HELD_OUT_WORDS = re.compile(
    r"architect|design|distribut|instrument|broadcast|mountain|\bmount\b|movement|nomin|occup|operat|participat|\bhub|"
    r"candidate|taxon|tributar|\bwin\b|winn|\bwon\b|heritage|profession|licen|career|vocation|tenant|champion|victor|"
    r"succeed|success|medal|\brank|species|guitar|piano|violin|drum|landmark|airport|railway|station|season|headwater|"
    r"stream|affluent|software|adapt|based on|\brange|\bpeak|summit|\bos\b|synonym|identical|alias|listed|register"
)


def question(text: str, head: str, tail: str) -> str:
    """The user turn about two entities of a text."""
    return f"Sentence: {clean(text)}\nEntity 1: {head}\nEntity 2: {tail}\nRelation:"


def styled(name: str, rng: Random) -> str:
    """A name, at times as a program or a title would write it."""
    chance = rng.random()
    if chance < 0.13:
        joined = name.replace(" ", "_")
        return joined if chance < 0.08 else joined.upper()
    return name.title() if chance < 0.18 else name


def make_group(
    names: Iterable[str],
    rows: Sequence[tuple[str, str]],
    rng: Random,
    definitions: Mapping[str, str] | None = None,
) -> RowGroup:
    """Rows that are asked with one list of names, in the order of the alphabet or in any.

    Args:
        names: The names; `NONE` is added where a row has it for an answer.
        rows: Questions and answers.
        rng: Of the order.
        definitions: What names mean, to stand behind them in the list.
    """
    labels = sorted(dict.fromkeys(names), key=str.casefold)
    if any(answer == NONE for _, answer in rows):
        labels.append(NONE)
    if rng.random() < 0.5:
        rng.shuffle(labels)
    means = definitions or {}
    shown = ", ".join(f"{label} ({means[label]})" if label in means else label for label in labels)
    system = _wording("explained").system.replace("{labels}", shown)
    return RowGroup(turns=(("system", system),), labels=tuple(labels), rows=tuple(rows))
