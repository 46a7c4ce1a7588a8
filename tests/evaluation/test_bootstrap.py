"""Intervals and tests over documents, against the slow obvious ways."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_relx.errors import DataError
from spacy_relx.evaluation import bootstrap
from spacy_relx.evaluation.bootstrap import compare, intervals
from spacy_relx.evaluation.counts import Tally, total


def tally(hits: int, predicted: int, gold: int, label: str = "r", n_outside: int = 0) -> Tally:
    return Tally(
        hits=Counter({label: hits}),
        predicted=Counter({label: predicted}),
        gold=Counter({label: gold}),
        n_outside=n_outside,
    )


def test_documents_that_are_alike_leave_no_doubt() -> None:
    found = intervals({str(i): tally(1, 2, 4) for i in range(20)}, n_rounds=50)
    assert (found["micro_p"].value, found["micro_p"].low, found["micro_p"].high) == (0.5, 0.5, 0.5)
    assert found["micro_f"].value == found["macro_f"].value == pytest.approx(1 / 3)
    assert intervals({}) == {}


def test_the_seed_decides() -> None:
    tallies = {str(i): tally(i % 3, 2 + i % 5, 3) for i in range(30)}
    assert intervals(tallies, n_rounds=9, seed=3) == intervals(tallies, n_rounds=9, seed=3)
    assert intervals(tallies, n_rounds=9, seed=3) != intervals(tallies, n_rounds=9, seed=4)


TALLIES = st.lists(
    st.builds(
        lambda gold, hits, extra, label, outside: tally(min(hits, gold), min(hits, gold) + extra, gold, label, outside),
        st.integers(0, 3),
        st.integers(0, 3),
        st.integers(0, 2),
        st.sampled_from(["r", "s"]),
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=40, deadline=None)
@given(docs=TALLIES)
def test_resamples_are_what_summing_the_drawn_documents_gives(docs: list[Tally]) -> None:
    n_rounds, seed = 20, 7
    draws = np.random.default_rng(seed).multinomial(len(docs), np.full(len(docs), 1 / len(docs)), size=n_rounds)
    micro, macro = [], []
    for draw in draws:
        drawn = total(doc for doc, times in zip(docs, draw) for _ in range(times))
        drawn.gold = +drawn.gold
        micro.append(drawn.micro.f)
        macro.append(drawn.macro_f or 0.0)
    found = intervals({str(i): doc for i, doc in enumerate(docs)}, n_rounds=n_rounds, seed=seed, level=0.8)
    assert (found["micro_f"].low, found["micro_f"].high) == pytest.approx(tuple(np.quantile(micro, [0.1, 0.9])))
    assert (found["macro_f"].low, found["macro_f"].high) == pytest.approx(tuple(np.quantile(macro, [0.1, 0.9])))
    assert found["micro_f"].value == pytest.approx(total(docs).micro.f)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tallies = {str(i): tally(i % 3, 3, 3) for i in range(10)}
    whole = intervals(tallies, n_rounds=40)
    monkeypatch.setattr(bootstrap, "_MAX_CELLS", 70)
    assert intervals(tallies, n_rounds=40) == whole


def test_the_randomisation_test_is_near_the_exact_one() -> None:
    first = [tally(h, 4, 4) for h in (1, 2, 0, 3, 1, 2, 1, 0)]
    second = [tally(h, 4, 4) for h in (3, 2, 2, 3, 2, 4, 1, 1)]

    def difference(swaps: tuple[bool, ...]) -> float:
        pairs = [(b, a) if swap else (a, b) for a, b, swap in zip(first, second, swaps)]
        return total(b for _, b in pairs).micro.f - total(a for a, _ in pairs).micro.f

    observed = abs(difference((False,) * 8))
    all_swaps = list(product((False, True), repeat=8))
    exact = sum(abs(difference(swaps)) >= observed - 1e-12 for swaps in all_swaps) / len(all_swaps)
    runs = [{str(i): doc for i, doc in enumerate(docs)} for docs in (first, second)]
    result = compare(*runs, n_rounds=20_000)
    assert result.p_value == pytest.approx(exact, abs=0.01)
    assert result.difference.value == pytest.approx(result.second - result.first)
    assert result.difference.low <= result.difference.value <= result.difference.high
    assert result.n_docs == 8


def test_a_run_does_not_differ_from_itself() -> None:
    docs = {str(i): tally(i % 2, 1, 1) for i in range(12)}
    result = compare(docs, docs, n_rounds=100)
    assert result.p_value == 1.0
    assert (result.difference.value, result.difference.low, result.difference.high) == (0.0, 0.0, 0.0)


def test_false_alarms_are_as_rare_as_promised() -> None:
    """Two runs that differ by chance alone: p below 0.1 in about a tenth of the cases."""
    random = np.random.default_rng(0)
    n_small = 0
    for seed in range(100):
        a, b = ({str(i): tally(int(h), 1, 1) for i, h in enumerate(random.integers(0, 2, 40))} for _ in range(2))
        n_small += compare(a, b, n_rounds=200, seed=seed).p_value < 0.1
    assert n_small <= 18


def test_other_documents_or_other_gold_are_refused() -> None:
    with pytest.raises(DataError, match="'b'"):
        compare({"a": tally(1, 1, 1)}, {"a": tally(1, 1, 1), "b": tally(1, 1, 1)})
    with pytest.raises(DataError, match="other gold relations in the document 'a'"):
        compare({"a": tally(1, 1, 1)}, {"a": tally(1, 1, 2)})
    with pytest.raises(DataError, match="no documents"):
        compare({}, {})
    with pytest.raises(DataError, match="level is 95"):
        intervals({"a": tally(1, 1, 1)}, level=95)
    with pytest.raises(DataError, match="n_rounds is 0"):
        intervals({"a": tally(1, 1, 1)}, n_rounds=0)
