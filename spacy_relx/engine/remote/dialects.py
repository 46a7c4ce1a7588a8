"""How servers that take token ids are asked about tokens: requests as JSON, and answers taken apart.

Both servers can be made to give the exact probability of any token after a prompt, each in its own way:

- vLLM reports log-probabilities of its whole vocabulary, for as many of the likeliest tokens as it is asked for, and
  for the token that it chose. What it may choose can be limited, so a token that is not among the likeliest is seen
  when the choice is limited to those that have not been seen. Newer versions take a list of tokens to report.
- llama.cpp reports the probabilities after its samplers. A bias that lifts the allowed tokens far above all others, and
  all by the same, leaves a distribution over just these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from spacy_relx.engine.remote.client import PassingError
from spacy_relx.engine.types import FreeAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spacy_relx.engine.types import TokenIds

#: Log-probabilities a position: the most that vLLM gives unless it is started with another --max-logprobs.
_TOP = 20

#: The most tokens that newer versions of vLLM report by their ids.
_VLLM_IDS = 128

_TOKEN_ID = "token_id:"

#: The likeliest token and nothing else, whatever a server or a model has for a default.
GREEDY: dict[str, dict[str, Any]] = {
    "vllm": {"temperature": 0.0, "repetition_penalty": 1.0, "top_k": -1, "top_p": 1.0, "min_p": 0.0},
    "llama_cpp": {"temperature": 0.0, "samplers": ["temperature"]},
}

#: Added to the logits of the tokens that llama.cpp may choose: every other is less than 1e-30 times as likely.
_LIFT = 100.0

#: What rounding may add to the logarithm of a probability, above 0.
_ROUNDED_UP = 0.01

#: No vocabulary has so many tokens.
_MOST_IDS = 2**31

#: The least logarithm that a probability in single precision has.
_LEAST = math.log(1e-45)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look at the tokens after a prompt has shown.

    Attributes:
        values: Log-probabilities by token, of some tokens.
        chosen: The token that the server chose: none of those it could choose from is likelier.
        rest: The log-probability of every token that was asked about and is not in `values`; None: unknown.
    """

    values: dict[int, float]
    chosen: int
    rest: float | None = None


class TokenDialect(Protocol):
    """A server that takes token ids."""

    name: str

    def look(self, ids: TokenIds, wanted: Sequence[int], whole: bool) -> dict[str, Any]:
        """The request for the probabilities of some tokens after a prompt.

        Args:
            ids: The prompt.
            wanted: The tokens.
            whole: Whether probabilities have to be those among the whole vocabulary.
        """

    def seen(self, answer: Any) -> Seen:
        """The answer to it. Raises `PassingError` where it is none."""

    def write(self, ids: TokenIds, max_new_tokens: int, stop_ids: frozenset[int]) -> dict[str, Any]:
        """The request for a greedy continuation."""

    def written(self, answer: Any, stop_ids: frozenset[int]) -> FreeAnswer:
        """The answer to it. Raises `PassingError` where it is none."""

    def tokenize(self, model: str, text: str) -> dict[str, Any]:
        """The request for the tokens of a plain text."""


class Vllm:
    """vLLM: `vllm serve MODEL --enable-lora --lora-modules NAME=ADAPTER`."""

    name = "vllm"

    def look(self, ids: TokenIds, wanted: Sequence[int], whole: bool) -> dict[str, Any]:
        """The request for the probabilities of some tokens after a prompt."""
        return {
            **self.write(ids, 1, frozenset()),
            "logprobs": _TOP,
            "allowed_token_ids": list(wanted),
            "logprob_token_ids": list(wanted[:_VLLM_IDS]),
        }

    def seen(self, answer: Any) -> Seen:
        """The answer to it."""
        return _reading(lambda: self._seen(_choice(answer)["logprobs"]))

    def write(self, ids: TokenIds, max_new_tokens: int, stop_ids: frozenset[int]) -> dict[str, Any]:
        """The request for a greedy continuation."""
        return {
            "prompt": list(ids),
            "max_tokens": max_new_tokens,
            **GREEDY["vllm"],
            "logprobs": 1,
            "return_tokens_as_token_ids": True,
            "stop_token_ids": sorted(stop_ids),
        }

    def written(self, answer: Any, stop_ids: frozenset[int]) -> FreeAnswer:
        """The answer to it."""

        def read() -> FreeAnswer:
            choice = _choice(answer)
            tokens = [_vllm_id(token) for token in choice["logprobs"]["tokens"]]
            return _free(tokens, choice["logprobs"]["token_logprobs"], choice["finish_reason"], stop_ids)

        return _reading(read)

    def tokenize(self, model: str, text: str) -> dict[str, Any]:
        """The request for the tokens of a plain text."""
        return {"model": model, "prompt": text, "add_special_tokens": False}

    @staticmethod
    def _seen(logprobs: Any) -> Seen:
        chosen = _vllm_id(logprobs["tokens"][0])
        values = {_vllm_id(token): log_prob(value) for token, value in logprobs["top_logprobs"][0].items()}
        return Seen({chosen: log_prob(logprobs["token_logprobs"][0]), **values}, chosen)


class LlamaCpp:
    """llama.cpp: `llama-server -m MODEL.gguf --lora ADAPTER.gguf`."""

    name = "llama_cpp"

    def look(self, ids: TokenIds, wanted: Sequence[int], whole: bool) -> dict[str, Any]:
        """The request for the probabilities of some tokens after a prompt."""
        return {
            **self.write(ids, 1, frozenset()),
            # The likeliest is chosen where its probability is the one before the samplers, which are then of no matter.
            "temperature": 0.0 if whole else 1.0,
            "post_sampling_probs": not whole,
            "n_probs": _TOP if whole else len(wanted),
            "logit_bias": [[token, _LIFT] for token in wanted],
        }

    def seen(self, answer: Any) -> Seen:
        """The answer to it."""

        def read() -> Seen:
            (first,) = _choice(answer)["logprobs"]["content"]
            if "prob" in first:
                values = {_id(item["id"]): _log(item["prob"]) for item in first["top_probs"]}
                return Seen(values, _id(first["id"]), _LEAST)
            values = {_id(item["id"]): log_prob(item["logprob"]) for item in first["top_logprobs"]}
            return Seen({**values, _id(first["id"]): log_prob(first["logprob"])}, _id(first["id"]))

        return _reading(read)

    def write(self, ids: TokenIds, max_new_tokens: int, stop_ids: frozenset[int]) -> dict[str, Any]:
        """The request for a greedy continuation."""
        return {
            "prompt": list(ids),
            "max_tokens": max_new_tokens,
            **GREEDY["llama_cpp"],
            "n_probs": 1,
            "cache_prompt": True,
        }

    def written(self, answer: Any, stop_ids: frozenset[int]) -> FreeAnswer:
        """The answer to it."""

        def read() -> FreeAnswer:
            choice = _choice(answer)
            content = choice["logprobs"]["content"]
            tokens, values = [_id(item["id"]) for item in content], [item["logprob"] for item in content]
            return _free(tokens, values, choice["finish_reason"], stop_ids)

        return _reading(read)

    def tokenize(self, model: str, text: str) -> dict[str, Any]:
        """The request for the tokens of a plain text."""
        return {"content": text, "add_special": False, "parse_special": False}


_Read = TypeVar("_Read")


def _reading(read: Callable[[], _Read]) -> _Read:
    try:
        return read()
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise PassingError(
            f"an answer without log-probabilities in the form of this API ({type(error).__name__}: {error})"
        ) from error


def _choice(answer: Any) -> Any:
    return answer["choices"][0]


def _vllm_id(token: str) -> int:
    if not token.startswith(_TOKEN_ID):
        raise ValueError(f"a token is {token!r}, not {_TOKEN_ID}…")
    return _id(token.removeprefix(_TOKEN_ID))


def _id(value: Any) -> int:
    number = int(value)
    if not 0 <= number < _MOST_IDS:
        raise ValueError(f"a token has the id {number}")
    return number


def log_prob(value: Any) -> float:
    """A log-probability as a server gives it.

    Raises:
        ValueError: If it is none.
        TypeError: If it is not even a number.
        OverflowError: If it is a number that no float can hold.
    """
    number = float(value)
    if not number <= _ROUNDED_UP:  # so that NaN is refused, too
        raise ValueError(f"a log-probability is {number}")
    return max(number, -1e9)


def _log(probability: Any) -> float:
    number = float(probability)
    if not 0 <= number <= 1.001:
        raise ValueError(f"a probability is {number}")
    return math.log(number) if number > 0 else _LEAST


def _free(tokens: list[int], values: Sequence[Any], reason: Any, stop_ids: frozenset[int]) -> FreeAnswer:
    """The answer up to its first terminal, whose log-probability counts."""
    end = next((i for i, token in enumerate(tokens) if token in stop_ids), None)
    log_probs = [log_prob(value) for value in values[: None if end is None else end + 1]]
    return FreeAnswer(tuple(tokens[:end]), min(sum(log_probs), 0.0), end is not None or reason == "stop")
