"""What the engines of a served model have in common: requests side by side, and an account of those that failed."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from spacy_relx.engine.types import Prompt, TokenIds, Work
from spacy_relx.errors import PartialAnswerError, ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from spacy_relx.engine.remote.client import Client

#: Tokens of questions that are collected for each request that may be under way, so that the server is kept busy.
_TOKENS_A_REQUEST = 2048

#: Shared runs that the server is taken to remember.
_N_SHARED_RUNS = 16

_Item = TypeVar("_Item")
_Prompt = TypeVar("_Prompt", bound=Prompt)


@dataclass(frozen=True, slots=True)
class ServerDevice:
    """Where a served model computes, as far as this side knows."""

    type: str = "server"


@dataclass(frozen=True)
class RemoteModel:
    """What is known about a served model; stands where a `LoadedModel` stands for a model in this process.

    Attributes:
        tokenizer: What makes prompts: a transformers tokenizer, or `ServerTemplate`.
        identity: Whatever the answers depend on, as far as this side knows.
        fingerprint: 64 hexadecimal digits for the identity.
        adapter_info: Always empty: an adapter is the server's.
    """

    tokenizer: Any
    identity: Mapping[str, Any]
    fingerprint: str
    adapter_info: dict[str, Any] = field(default_factory=dict)


class ServedEngine:
    """What the engines of a served model have in common: requests side by side, and an account of those that failed.

    Args:
        client: Asks the server.
        loaded: What is known about the model.

    Attributes:
        work: Counters; `n_forward` counts requests that were answered, `n_tokens` the tokens in them.
        max_pack_tokens: Tokens of questions that are collected before they are asked.
        n_weight_changes: Always 0: whether the server's weights have changed is not known here.
        lock: Held while counters change.
    """

    n_weight_changes = 0

    def __init__(self, client: Client, loaded: RemoteModel) -> None:
        self.client = client
        self.loaded = loaded
        self.device = ServerDevice()
        self.max_pack_tokens = _TOKENS_A_REQUEST * client.spec.max_concurrency
        self.work = Work()
        self.lock = threading.RLock()
        self._begun: OrderedDict[TokenIds, None] = OrderedDict()
        self._workers: ThreadPoolExecutor | None = None
        self._owner = 0

    def weights_changed(self) -> None:
        """Nothing is kept here that was computed from weights."""

    def close(self) -> None:
        """Close the connections."""
        if self._workers is not None:
            self._workers.shutdown()
        self.client.close()

    def count(self, n_tokens: int) -> None:
        """Count one answered request."""
        with self.lock:
            self.work.n_forward += 1
            self.work.n_tokens += n_tokens

    def each(self, items: Sequence[_Item], ask: Callable[[_Item], Any]) -> list[Any]:
        """Ask about some items side by side, begun in their order; an error is the result of its item.

        An error that all requests would meet ends it: the items that are not asked yet get the same.
        """
        stop: list[ServerError] = []

        def answer(item: _Item) -> Any:
            if stop:
                return stop[0]
            try:
                return ask(item)
            except ServerError as error:
                if error.for_all:
                    stop.append(error)
                return error

        if len(items) < 2:
            return [answer(item) for item in items]
        futures = [self._pool().submit(answer, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise

    def in_text_order(self, prompts: Sequence[Prompt], ask: Callable[[list[int]], list[Any]]) -> list[Any]:
        """Ask in an order in which neighbours share the most, for the server keeps what it has just computed.

        Args:
            prompts: The prompts.
            ask: Takes positions, and gives a result or an error for each.

        Raises:
            PartialAnswerError: If some could not be answered; it holds the results of the others.
        """
        order = sorted(range(len(prompts)), key=lambda i: prompts[i].ids)
        results: list[Any] = [None] * len(prompts)
        for i, result in zip(order, ask(order)):
            results[i] = result
        with self.lock:
            self.work.n_prompts += len(prompts)
            self.work.n_prompt_tokens += sum(len(prompt.ids) for prompt in prompts)
        errors = [result for result in results if isinstance(result, ServerError)]
        if not errors:
            return results
        if len(errors) == len(results):
            raise errors[0]
        raise PartialAnswerError(f"{len(errors)} of {len(results)} questions have no answer: {errors[0]}", results)

    def prefixes_first(self, prompts: Sequence[_Prompt], ask: Callable[[_Prompt], Any]) -> list[Any]:
        """Ask about some prompts; of those that begin with a new shared run, one is asked before the others.

        Otherwise all requests that are under way would compute that run, each for itself.
        """
        first: dict[TokenIds, int] = {}
        for i, prompt in enumerate(prompts):
            run = prompt.ids[: prompt.n_shared]
            if run and run not in self._begun:
                first.setdefault(run, i)
        early = list(first.values())
        results = dict(zip(early, self.each([prompts[i] for i in early], ask)))
        hopeless = next((result for result in results.values() if _is_for_all(result)), None)
        if hopeless is not None:
            return [results.get(i, hopeless) for i in range(len(prompts))]
        with self.lock:
            self._begun.update((run, None) for run, i in first.items() if not isinstance(results[i], ServerError))
            while len(self._begun) > _N_SHARED_RUNS:
                self._begun.popitem(last=False)
        late = [i for i in range(len(prompts)) if i not in results]
        results |= dict(zip(late, self.each([prompts[i] for i in late], ask)))
        return [results[i] for i in range(len(prompts))]

    def _pool(self) -> ThreadPoolExecutor:
        with self.lock:
            if self._workers is None or self._owner != os.getpid():  # threads do not survive a fork
                self._workers = ThreadPoolExecutor(self.client.spec.max_concurrency, "spacy-relx-request")
                self._owner = os.getpid()
            return self._workers


def _is_for_all(result: object) -> bool:
    return isinstance(result, ServerError) and result.for_all
