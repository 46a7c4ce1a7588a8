"""What one forward pass answers: items with their prompts, their tree, and who attends to whom in it. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from spacy_relx.engine import packing, prefix_tree

if TYPE_CHECKING:
    from spacy_relx.engine.types import Prompt, TokenIds

_T = TypeVar("_T")


class Pack(Sequence[_T]):
    """Items that are answered together. A part of them is a pack of its own.

    Args:
        items: What is asked.
        prompts: Its prompts.

    Attributes:
        following: The pack that is answered next, or None.
    """

    def __init__(self, items: Sequence[_T], prompts: Sequence[Prompt]) -> None:
        self._items = items
        self.prompts = prompts
        self.following: Pack[_T] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Pack(self._items[index], self.prompts[index])
        return self._items[index]

    @cached_property
    def run(self) -> TokenIds:
        """The kept run that all prompts begin with; prompts that begin differently are one tree all the same."""
        first = self.prompts[0]
        run = first.ids[: first.n_shared]
        return run if all(prompt.ids[: prompt.n_shared] == run for prompt in self.prompts) else ()

    @cached_property
    def tree(self) -> prefix_tree.PrefixTree:
        """The tokens behind the run."""
        return prefix_tree.build([prompt.ids[len(self.run) :] for prompt in self.prompts])

    @cached_property
    def plan(self) -> packing.AttentionPlan:
        """Who attends to whom in the tree."""
        return packing.plan_tree(self.tree)
