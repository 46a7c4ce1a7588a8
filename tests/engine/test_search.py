from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spacy_relx.engine import label_trie, search
from spacy_relx.engine.types import LabelIds, Scoring

from .strategies import label_sets

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest


class Table:
    """A model whose logits depend on the prompt and on the tokens appended to it, and on nothing else."""

    def __init__(self, prompts: Sequence[int], labels: LabelIds) -> None:
        self.tokens = tuple(sorted({token for ids in labels.sequences for token in ids} | {labels.terminal}))
        self._prompts = prompts
        self._appended: list[tuple[int, ...]] = []

    def first(self, normalise: bool) -> tuple[search.FloatArray, search.FloatArray | None]:
        return self._see([(prompt,) for prompt in self._prompts], normalise)

    def extend(
        self, chains: Sequence[search.Extension], every: bool, normalise: bool
    ) -> tuple[list[int], search.FloatArray, search.FloatArray | None]:
        last, seen = [], []
        for chain in chains:
            path = self._appended[chain.after] if chain.after >= 0 else (self._prompts[chain.prompt],)
            for token in chain.ids:
                path = (*path, token)
                self._appended.append(path)
                if every:
                    seen.append(path)
            if not every:
                seen.append(path)
            last.append(len(self._appended) - 1)
        return (last, *self._see(seen, normalise))

    def _see(
        self, paths: Sequence[tuple[int, ...]], normalise: bool
    ) -> tuple[search.FloatArray, search.FloatArray | None]:
        logits = np.stack([3 * np.random.default_rng(path).normal(size=len(self.tokens)) for path in paths])
        norms = np.logaddexp.reduce(logits, axis=1) + 0.5
        return logits.astype(np.float32), norms.astype(np.float32) if normalise else None


@given(
    labels=label_sets(),
    prompts=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    scoring=st.sampled_from(["trie", "sequence"]),
    top_k=st.integers(1, 4),
    data=st.data(),
)
def test_prompts_searched_together_have_the_very_scores_of_each_alone(
    labels: LabelIds, prompts: list[int], scoring: Scoring, top_k: int, data: st.DataObject
) -> None:
    subsets = st.lists(st.integers(0, len(labels) - 1), min_size=1, unique=True).map(sorted).map(tuple)
    tries = [label_trie.build(labels, data.draw(subsets)) for _ in prompts]
    together = search.rank(Table(prompts, labels), tries, top_k=top_k, scoring=scoring)
    for prompt, trie, ranking in zip(prompts, tries, together):
        assert search.rank(Table([prompt], labels), [trie], top_k=top_k, scoring=scoring) == [ranking]


def test_prompts_at_one_node_are_weighed_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    weighed: list[int] = []
    reduce_ = search._log_sums
    monkeypatch.setattr(search, "_log_sums", lambda rows: weighed.append(len(rows)) or reduce_(rows))
    labels = LabelIds(((1,), (2, 3), (4,)), 0)
    trie = label_trie.build(labels, (0, 1, 2))
    search.rank(Table(range(56), labels), [trie] * 56, top_k=1, scoring="trie")
    assert weighed == [56]
