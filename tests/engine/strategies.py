"""Prompts and label sets over a tiny alphabet, so that shared prefixes, duplicates and nested labels are common."""

from __future__ import annotations

from hypothesis import strategies as st

from spacy_relx.engine.types import LabelIds, Prompt, Question

from .conftest import TERMINAL

token_ids = st.lists(st.integers(0, 3), min_size=1, max_size=14).map(tuple)
label_ids = st.lists(st.integers(4, 6), min_size=1, max_size=5).map(tuple)


@st.composite
def label_sets(draw: st.DrawFn, max_size: int = 8) -> LabelIds:
    sequences = draw(st.lists(label_ids, min_size=1, max_size=max_size, unique=True))
    return LabelIds(tuple(sequences), TERMINAL)


@st.composite
def prompt_lists(draw: st.DrawFn, max_size: int = 12) -> list[Prompt]:
    shared = draw(st.lists(st.integers(0, 3), max_size=6).map(tuple))
    return [Prompt(shared + ids, len(shared)) for ids in draw(st.lists(token_ids, min_size=1, max_size=max_size))]


@st.composite
def questions(draw: st.DrawFn, labels: LabelIds, max_size: int = 12) -> list[Question]:
    positions = st.integers(0, len(labels) - 1)
    allowed = st.lists(positions, min_size=1, max_size=len(labels), unique=True).map(lambda p: tuple(sorted(p)))
    return [Question(prompt, draw(allowed)) for prompt in draw(prompt_lists(max_size))]
