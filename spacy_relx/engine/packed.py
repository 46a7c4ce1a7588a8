"""The packed engine: many prompts in one forward pass, each answered as if it had been alone."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from spacy_relx.engine import decoder, label_trie, packing, prefix_tree, search
from spacy_relx.engine.attention import install, make_attention, make_store, own_forward
from spacy_relx.engine.halving import in_halves
from spacy_relx.engine.output import OutputHead
from spacy_relx.engine.pack import Pack
from spacy_relx.engine.types import (
    DEFAULT_NEW_TOKENS,
    FreeAnswer,
    LabelIds,
    Prompt,
    Question,
    Ranking,
    Scoring,
    TokenIds,
    Work,
)
from spacy_relx.engine.workers import prepare_worker
from spacy_relx.errors import PackBudgetError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spacy_relx.engine.loading import LoadedModel
    from spacy_relx.engine.store import Store

#: Tokens of a pack, not counting the shared run. On a processor a pack is one document, or part of a long one.
DEFAULT_PACK_TOKENS = {"cpu": 2048, "cuda": 8192, "mps": 2048}

#: Nodes for label tokens that a pack's store has room for at first, for each prompt.
_SPARE_NODES = 2

#: Shared runs (system text, labels, demonstrations) whose keys and values are kept.
_N_SHARED_RUNS = 4

_ADVICE = (
    "One prompt alone does not fit into memory. Shorten its text (the `window` of the candidates), use quantization or "
    "another device."
)

_T = TypeVar("_T")
_Result = TypeVar("_Result")


class PackedEngine:
    """Answers prompts in packs.

    Args:
        loaded: The model to ask.
        max_pack_tokens: Most tokens of one forward pass, not counting the shared run; None: by device.

    Attributes:
        work: Counters of what has been computed.
        n_weight_changes: How often the weights were changed since they were loaded.
        lock: Held while the model computes, and by whoever changes its weights.
    """

    def __init__(self, loaded: LoadedModel, max_pack_tokens: int | None = None) -> None:
        self.loaded = loaded
        self.device = loaded.device
        self.max_pack_tokens = max_pack_tokens or DEFAULT_PACK_TOKENS.get(self.device.type, 2048)
        self.work = Work()
        install(loaded.model)
        self._head = OutputHead(loaded.model)
        self._shared: OrderedDict[tuple[TokenIds, int], Store] = OrderedDict()
        self.n_weight_changes = 0
        self.lock = threading.RLock()

    def weights_changed(self) -> None:
        """Forget everything computed from the weights; to be called after any change of them."""
        with self.lock:
            self.n_weight_changes += 1
            self._shared.clear()
            self._head.forget()

    def rank(
        self,
        questions: Sequence[Question],
        labels: LabelIds,
        *,
        top_k: int = 1,
        scoring: Scoring = "trie",
        tolerance: float = search.DEFAULT_TOLERANCE,
    ) -> list[Ranking]:
        """Find the most probable labels of every question.

        Args:
            questions: Prompts with the labels that may answer them; best in the order of their text.
            labels: All labels.
            top_k: Labels wanted a question.
            scoring: How a label's probability is defined, see `search.rank`.
            tolerance: Largest unexplored share under `sequence` scoring.

        Raises:
            PackBudgetError: If one prompt exceeds the pack budget, or does not fit into memory alone.
        """

        def answer(pack: Pack[Question]) -> list[Ranking]:
            session = _PackSession(self, pack, labels)
            tries = {allowed: label_trie.build(labels, allowed) for allowed in {question.allowed for question in pack}}
            of_prompt = [tries[question.allowed] for question in pack]
            return search.rank(session, of_prompt, top_k=top_k, scoring=scoring, tolerance=tolerance)

        return self._in_packs(questions, [question.prompt for question in questions], answer)

    def decode(
        self, prompts: Sequence[Prompt], *, stop_ids: frozenset[int], max_new_tokens: int = DEFAULT_NEW_TOKENS
    ) -> list[FreeAnswer]:
        """Continue every prompt greedily, as the reference does one prompt at a time.

        Args:
            prompts: The prompts.
            stop_ids: Tokens that end an answer.
            max_new_tokens: Most tokens of an answer.
        """

        def answer(pack: Pack[Prompt]) -> list[FreeAnswer]:
            return _PackSession(self, pack, None).decode(stop_ids, max_new_tokens)

        return self._in_packs(prompts, prompts, answer)

    def _in_packs(
        self, items: Sequence[_T], prompts: Sequence[Prompt], answer: Callable[[Pack[_T]], list[_Result]]
    ) -> list[_Result]:
        if not items:
            return []
        self._check_lengths(prompts)
        parts = [slice(r.start, r.stop) for r in packing.split_by_budget(prompts, self.max_pack_tokens)]
        pack = Pack(items[parts[0]], prompts[parts[0]])
        results: list[_Result] = []
        with self.lock, torch.inference_mode():
            prepare_worker(self.device.type)
            for part in (*parts[1:], None):
                following = None if part is None else Pack(items[part], prompts[part])
                pack.following = following
                answers = in_halves(pack, answer, self._forget_failed_pack, _ADVICE)  # type: ignore[arg-type]
                results.extend(result for some in answers for result in some)
                if following is not None:
                    pack = following  # what is answered goes, its tree and plan with it
            self.work.n_prompts += len(prompts)
            self.work.n_prompt_tokens += sum(len(prompt.ids) for prompt in prompts)
        return results

    def _check_lengths(self, prompts: Sequence[Prompt]) -> None:
        limit = getattr(self.loaded.model.config, "max_position_embeddings", None)
        longest = max(len(prompt.ids) for prompt in prompts)
        if limit is not None and longest >= limit:
            raise PackBudgetError(
                f"A prompt has {longest} tokens, but the model was made for {limit}. Shorten its text (the `window` of "
                "the candidates), the label list or the examples."
            )

    def _forget_failed_pack(self) -> None:
        self.work.n_out_of_memory += 1
        self._shared.clear()

    def _shared_run(self, ids: TokenIds) -> Store | None:
        """Keys and values of the tokens that all prompts begin with, computed once."""
        if not ids:
            return None
        key = (ids, self.n_weight_changes)
        store = self._shared.pop(key, None)
        if store is None:
            store = make_store(self.device, len(ids))
            tree = prefix_tree.build([ids])
            nobody = torch.empty(0, dtype=torch.int64, device=self.device)
            self._forward(tree.ids, tree.depth, packing.plan_tree(tree), store, nobody)
        self._shared[key] = store
        while len(self._shared) > _N_SHARED_RUNS:
            self._shared.popitem(last=False)
        return store

    def _forward(
        self,
        ids: prefix_tree.IntArray,
        positions: prefix_tree.IntArray,
        plan: packing.AttentionPlan,
        store: Store,
        wanted: Tensor,
    ) -> Tensor:
        """Run nodes through the model. Shape of the result: (n_wanted, hidden_size)."""
        store.reserve(len(ids))
        attention = make_attention(plan, self.device, store)
        node_ids, node_positions = (torch.from_numpy(array).to(self.device) for array in (ids, positions))
        model = self.loaded.model
        if decoder.is_stock(model):
            hidden = decoder.forward(model, node_ids, node_positions, attention, wanted)
        else:
            hidden = own_forward(model, node_ids, node_positions, attention).index_select(0, wanted)
        store.advance(len(ids))
        self.work.n_forward += 1
        self.work.n_tokens += len(ids)
        return hidden


@dataclass(frozen=True, slots=True)
class _Appended:
    """A token appended after the pack: its node in the store, its position, and the appended nodes it sees."""

    node: int
    position: int
    ancestors: tuple[int, ...]


class _PackSession:
    """One pack and the tokens appended to its prompts: the `LabelModel` of the search."""

    def __init__(self, engine: PackedEngine, pack: Pack[Any], labels: LabelIds | None) -> None:
        self._engine = engine
        self._head = engine._head
        self._n_shared = len(pack.run)
        self._tree = pack.tree
        n_nodes = len(self._tree) + _SPARE_NODES * len(pack)
        self._store = make_store(engine.device, n_nodes, engine._shared_run(pack.run))
        self._appended: list[_Appended] = []
        self._of_prompt: list[list[int]] = [[] for _ in pack]
        self._paths: dict[int, prefix_tree.IntArray] = {}
        # A copy to a GPU waits for what it was given before, so it goes first.
        leaf = torch.from_numpy(self._tree.leaf).to(engine.device)
        nodes = (self._tree.ids, self._tree.depth + self._n_shared)
        self._last = engine._forward(*nodes, pack.plan, self._store, leaf).float()
        if pack.following is not None:
            _ = pack.following.plan  # while a GPU is at work on this one
        self.tokens: TokenIds = ()
        if labels is not None:
            self.tokens = tuple(sorted({token for ids in labels.sequences for token in ids} | {labels.terminal}))

    def first(self, normalise: bool) -> tuple[search.FloatArray, search.FloatArray | None]:
        return self._head.logits(self._last, self.tokens, normalise)

    def extend(
        self, chains: Sequence[search.Extension], every: bool, normalise: bool
    ) -> tuple[list[int], search.FloatArray, search.FloatArray | None]:
        last, hidden = self._append(chains, every)
        self._engine.work.n_expansions += len(chains)
        return (last, *self._head.logits(hidden, self.tokens, normalise))

    def decode(self, stop_ids: frozenset[int], max_new_tokens: int) -> list[FreeAnswer]:
        n_prompts = len(self._of_prompt)
        written: list[list[int]] = [[] for _ in range(n_prompts)]
        log_probs = [0.0] * n_prompts
        finished = [False] * n_prompts
        running = list(range(n_prompts))
        after = [-1] * n_prompts
        hidden = self._last
        for step in range(max_new_tokens):
            tokens, values = self._head.greedy(hidden)
            going: list[int] = []
            for prompt, token, value in zip(running, tokens, values):
                log_probs[prompt] += value
                if token in stop_ids:
                    finished[prompt] = True
                else:
                    written[prompt].append(token)
                    going.append(prompt)
            running = going
            if not running or step == max_new_tokens - 1:
                break
            chains = [search.Extension(prompt, after[prompt], (written[prompt][-1],)) for prompt in running]
            last, hidden = self._append(chains, every=True)
            for prompt, token in zip(running, last):
                after[prompt] = token
        return [FreeAnswer(tuple(w), p, f) for w, p, f in zip(written, log_probs, finished)]

    def _append(self, chains: Sequence[search.Extension], every: bool) -> tuple[list[int], Tensor]:
        """Append chains of tokens.

        Returns:
            The number of each chain's last token, and the hidden states of every token, or of these last ones.
        """
        first_node = self._store.n_nodes
        ids: list[int] = []
        last: list[int] = []
        new_of: dict[int, list[int]] = {}
        for chain in chains:
            above = self._appended[chain.after] if chain.after >= 0 else None
            position = (
                above.position if above else self._n_shared + int(self._tree.depth[self._tree.leaf[chain.prompt]])
            )
            ancestors = above.ancestors if above else ()
            for token in chain.ids:
                position += 1
                node = first_node + len(ids)
                ancestors = (*ancestors, node)
                new_of.setdefault(chain.prompt, []).append(len(self._appended))
                self._of_prompt[chain.prompt].append(len(self._appended))
                self._appended.append(_Appended(node, position, ancestors))
                ids.append(token)
            last.append(len(self._appended) - 1)
        blocks = [self._block(prompt, numbers, first_node) for prompt, numbers in new_of.items()]
        positions = [token.position for token in self._appended[len(self._appended) - len(ids) :]]
        plan = packing.plan_blocks(blocks, len(ids))
        wanted = torch.arange(len(ids)) if every else torch.from_numpy(np.cumsum([len(c.ids) for c in chains]) - 1)
        wanted = wanted.to(self._engine.device)
        nodes = (np.asarray(ids), np.asarray(positions))
        return last, self._engine._forward(*nodes, plan, self._store, wanted).float()

    def _block(self, prompt: int, numbers: list[int], first_node: int) -> packing.Block:
        """The block of one prompt's new tokens: all of its pack path, and their own ancestors among the appended."""
        leaf = int(self._tree.leaf[prompt])
        if leaf not in self._paths:
            self._paths[leaf] = self._tree.path(leaf)
        own = np.asarray([self._appended[n].node for n in self._of_prompt[prompt]])
        mask = np.asarray([np.isin(own, self._appended[n].ancestors) for n in numbers])
        queries = np.asarray([self._appended[n].node - first_node for n in numbers])
        return packing.Block(queries, self._paths[leaf], own, mask)
