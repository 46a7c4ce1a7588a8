from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_relx.engine import prefix_tree

from .strategies import token_ids

prompt_ids = st.lists(token_ids, min_size=1, max_size=15)


def test_a_hand_worked_tree() -> None:
    tree = prefix_tree.build([(1, 2, 3), (1, 2), (1, 4), (1, 2, 3)])
    assert tree.ids.tolist() == [1, 2, 3, 4]
    assert tree.depth.tolist() == [0, 1, 2, 1]
    assert tree.parent.tolist() == [-1, 0, 1, 0]
    assert tree.end.tolist() == [4, 3, 3, 4]
    assert tree.leaf.tolist() == [2, 1, 3, 2]


@given(prompt_ids)
def test_every_prompt_is_the_path_of_its_leaf(prompts: list[tuple[int, ...]]) -> None:
    tree = prefix_tree.build(prompts)
    for prompt, leaf in zip(prompts, tree.leaf):
        path = tree.path(int(leaf))
        assert tuple(tree.ids[path].tolist()) == prompt
        assert tree.depth[path].tolist() == list(range(len(prompt)))


@given(prompt_ids)
def test_the_tree_has_one_node_for_each_distinct_prefix(prompts: list[tuple[int, ...]]) -> None:
    tree = prefix_tree.build(prompts)
    assert len(tree) == len({prompt[: i + 1] for prompt in prompts for i in range(len(prompt))})
    assert max(map(len, prompts)) <= len(tree) <= sum(map(len, prompts))


@given(token_ids, st.lists(st.lists(st.integers(0, 3), max_size=6).map(tuple), min_size=1, max_size=15))
def test_what_all_prompts_begin_with_is_one_run(common: tuple[int, ...], rests: list[tuple[int, ...]]) -> None:
    prompts = [common + rest for rest in rests]
    tree = prefix_tree.build(prompts)
    assert len(tree) == len({prompt[: i + 1] for prompt in prompts for i in range(len(prompt))})
    assert [tuple(tree.ids[tree.path(leaf)].tolist()) for leaf in tree.leaf.tolist()] == prompts
    assert tree.end[: len(common)].tolist() == [len(tree)] * len(common)
    assert tree.mask().sum(axis=1).tolist() == (tree.depth + 1).tolist()


@given(prompt_ids, st.randoms())
def test_the_order_of_the_prompts_does_not_change_the_tree(prompts: list[tuple[int, ...]], random: object) -> None:
    shuffled = list(prompts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    a, b = prefix_tree.build(prompts), prefix_tree.build(shuffled)
    for name in ("ids", "depth", "parent", "end"):
        assert np.array_equal(getattr(a, name), getattr(b, name))


@given(prompt_ids)
def test_a_node_sees_itself_and_its_ancestors(prompts: list[tuple[int, ...]]) -> None:
    tree = prefix_tree.build(prompts)
    mask = tree.mask()
    assert mask.sum(axis=1).tolist() == (tree.depth + 1).tolist()
    for node in range(len(tree)):
        assert np.flatnonzero(mask[node]).tolist() == tree.path(node).tolist()


@pytest.mark.parametrize("prompts", [[], [()], [(1,), ()]])
def test_nothing_to_build_is_an_error(prompts: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="at least one prompt, none of them empty"):
        prefix_tree.build(prompts)
