from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_relx.engine import packing, prefix_tree
from spacy_relx.engine.types import Prompt
from spacy_relx.errors import PackBudgetError

from .strategies import prompt_lists, token_ids


def seen_by(plan: packing.AttentionPlan, row: int) -> list[int]:
    """The nodes that a query row attends to, read from the padded buckets as the attention reads them."""
    slot = int(plan.slot[row])
    for bucket in plan.buckets:
        if slot < bucket.queries.size:
            block, place = divmod(slot, bucket.queries.shape[1])
            assert bucket.queries[block, place] == row
            return sorted(bucket.keys[block][bucket.mask[block, place]].tolist())
        slot -= bucket.queries.size
    raise AssertionError(f"row {row} has no slot")


@given(st.lists(token_ids, min_size=1, max_size=15), st.sampled_from([1, 2, 5, 100]))
def test_the_blocks_of_a_tree_are_its_mask(prompts: list[tuple[int, ...]], max_block: int) -> None:
    tree = prefix_tree.build(prompts)
    plan = packing.plan_tree(tree, max_block)
    for node in range(len(tree)):
        assert seen_by(plan, node) == tree.path(node).tolist()


def test_attention_costs_what_the_tree_costs() -> None:
    # 64 answers of 8 tokens below a text of 100: the square of the pack would be 374,544 scores.
    prompts = [tuple(range(100)) + (200 + i,) * 8 for i in range(64)]
    tree = prefix_tree.build(prompts)
    plan = packing.plan_tree(tree, max_block=64)
    n_scores = sum(bucket.mask.size for bucket in plan.buckets)
    assert len(tree) == 100 + 64 * 8
    assert n_scores < (len(tree) ** 2) / 3


@given(prompt_lists(), st.integers(14, 60))
def test_packs_keep_the_budget_and_hold_all_prompts_in_order(prompts: list[Prompt], budget: int) -> None:
    ranges = list(packing.split_by_budget(prompts, budget))
    assert [i for part in ranges for i in part] == list(range(len(prompts)))
    for part in ranges:
        assert len(prefix_tree.build([prompts[i].ids[prompts[i].n_shared :] for i in part])) <= budget


def test_a_prompt_over_the_budget_is_an_error_and_not_cut() -> None:
    prompts = [Prompt((1, 2, 3, 4), 1), Prompt((1,) * 12, 1)]
    with pytest.raises(PackBudgetError, match="has 11 tokens after the shared part, but a pack may hold 10"):
        list(packing.split_by_budget(prompts, 10))


def test_the_shared_run_is_not_counted() -> None:
    prompts = [Prompt((7,) * 100 + (i,), 100) for i in range(10)]
    assert list(packing.split_by_budget(prompts, 10)) == [range(10)]


def test_a_bucket_holds_blocks_of_similar_size() -> None:
    long = packing.Block(np.arange(2), np.arange(400), np.arange(400, 402), np.ones((2, 2), dtype=bool))
    short = [packing.Block(np.array([i]), np.arange(3), np.array([3]), np.ones((1, 1), dtype=bool)) for i in (2, 3)]
    plan = packing.plan_blocks([long, *short], 4)
    assert [bucket.keys.shape for bucket in plan.buckets] == [(2, 4), (1, 416)]
    assert [bucket.queries.shape for bucket in plan.buckets] == [(2, 1), (1, 2)]


def test_plans_of_about_one_size_have_one_shape() -> None:
    # What a processor compiles for each shape is then there for the next document.
    def shapes(n_words: int) -> set[tuple[int, ...]]:
        prompts = [(*range(n_words), 100 + i, 7, 200 + j, 8) for i in range(3) for j in range(3)]
        return {bucket.mask.shape for bucket in packing.plan_tree(prefix_tree.build(prompts)).buckets}

    assert shapes(41) == shapes(44) == shapes(48) != shapes(60)


@given(st.integers(1, 5000))
def test_padding_is_little(n: int) -> None:
    rows = packing.padded(n)
    assert n <= rows < n + max(16, n / 16)
    assert packing.padded(rows) == rows


@given(token_ids, token_ids, st.integers(0, 16))
def test_a_guessed_prefix_changes_nothing(a: tuple[int, ...], b: tuple[int, ...], guess: int) -> None:
    shared = packing._common_prefix(a, b, guess)
    assert a[:shared] == b[:shared]
    assert len(a) == shared or len(b) == shared or a[shared] != b[shared]
