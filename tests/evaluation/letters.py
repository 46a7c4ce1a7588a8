"""Records by hand: mentions are letters, and a letter's place is its number."""

from __future__ import annotations

from typing import Any

from spacy_relx.evaluation.records import MentionRecord, PairRecord, RunInfo

TEXT = "abcdefghijklmnopqrstuvwxyz"


def mention(letter: str, kind: str = "") -> MentionRecord:
    start = TEXT.index(letter)
    return MentionRecord(start, start + 1, letter, kind)


def record(
    pair: str,
    gold: str | tuple[str, ...] = (),
    answer: str | None = None,
    score: float = 0.9,
    *,
    doc: str = "d",
    negative: str | None = "no_relation",
    types: tuple[str, str] = ("", ""),
    **more: Any,
) -> PairRecord:
    """One pair such as "ab": a is the head, b the tail."""
    said = answer if answer is not None else negative
    return PairRecord(
        doc=doc,
        text=TEXT,
        head=mention(pair[0], types[0]),
        tail=mention(pair[1], types[1]),
        gold=(gold,) if isinstance(gold, str) else gold,
        scores=() if said is None else ((said, score),),
        answer=answer,
        **more,
    )


def run(protocol: Any = "given", *, split: str = "dev", **settings: Any) -> RunInfo:
    return RunInfo("letters", split, protocol, ("r", "s", "t"), "no_relation", settings)
