"""A served model that takes token ids: the same prompts, labels and scores as of a model in this process.

The label search of the packed engine asks here, and each of its questions is a request: the prompt, the part of a label
that is written so far, and the tokens whose probabilities are wanted. All requests of a round are under way together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spacy_relx.engine import label_trie, search
from spacy_relx.engine.remote.base import RemoteModel, ServedEngine
from spacy_relx.engine.remote.client import PassingError
from spacy_relx.engine.types import DEFAULT_NEW_TOKENS, FreeAnswer, Prompt, Question, Ranking, TokenIds
from spacy_relx.errors import ConfigError, ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spacy_relx.engine.remote.client import Client
    from spacy_relx.engine.remote.dialects import TokenDialect
    from spacy_relx.engine.types import LabelIds, Scoring

#: Log-probabilities are rounded on their way; one that grows by more than this has been computed differently.
_ROUNDING = 1e-3


class RemoteEngine(ServedEngine):
    """Answers prompts by what a server says about tokens.

    Args:
        client: Asks the server.
        loaded: What is known about the model.
        dialect: How it is asked.
    """

    def __init__(self, client: Client, loaded: RemoteModel, dialect: TokenDialect) -> None:
        super().__init__(client, loaded)
        self.dialect = dialect
        self._gives_whole: bool | None = None

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
            questions: Prompts with the labels that may answer them.
            labels: All labels.
            top_k: Labels wanted a question.
            scoring: How a label's probability is defined, see `search.rank`.
            tolerance: Largest share of the probability that may stay unexplored: under `sequence` scoring for all of an
                answer, under `trie` scoring for each choice.

        Raises:
            PartialAnswerError: If some questions could not be answered.
            ServerError: If none could.
        """

        def ask(order: list[int]) -> list[Any]:
            session = _Session(self, [questions[i] for i in order], labels, tolerance)
            tries = [label_trie.build(labels, questions[i].allowed) for i in order]
            if scoring == "sequence" and questions:
                self._check_whole(questions[order[0]].prompt.ids, labels)
            rankings = search.rank(session, tries, top_k=top_k, scoring=scoring, tolerance=tolerance)
            return [session.errors.get(i, ranking) for i, ranking in enumerate(rankings)]

        return self.in_text_order([question.prompt for question in questions], ask)

    def decode(
        self, prompts: Sequence[Prompt], *, stop_ids: frozenset[int], max_new_tokens: int = DEFAULT_NEW_TOKENS
    ) -> list[FreeAnswer]:
        """Continue every prompt greedily.

        Args:
            prompts: The prompts.
            stop_ids: Tokens that end an answer.
            max_new_tokens: Most tokens of an answer.

        Raises:
            PartialAnswerError: If some prompts could not be answered.
            ServerError: If none could.
        """

        def one(prompt: Prompt) -> FreeAnswer:
            body = self.dialect.write(prompt.ids, max_new_tokens, stop_ids)
            answer: FreeAnswer = self._post(body, lambda answer: self.dialect.written(answer, stop_ids))
            self.count(len(prompt.ids) + len(answer.ids))
            return answer

        return self.in_text_order(prompts, lambda order: self.prefixes_first([prompts[i] for i in order], one))

    def look(self, ids: TokenIds, wanted: Sequence[int], *, whole: bool, tolerance: float) -> dict[int, float]:
        """Log-probabilities of some tokens after a prompt, up to a constant unless `whole` is set.

        A token that the server did not show after all is given its upper bound, once all such tokens together are less
        than `tolerance` of what was seen.

        Raises:
            ServerError: If the server does not say.
        """
        known: dict[int, float] = {}
        missing = list(wanted)
        bound = math.inf
        while missing:
            seen = self._seen(ids, missing, whole)
            if seen.values[seen.chosen] > bound + _ROUNDING:
                raise ServerError(_NOT_RAW.format(url=self.client.spec.base_url), for_all=True)
            bound = seen.values[seen.chosen]
            known |= {token: seen.values[token] for token in missing if token in seen.values}
            missing = [token for token in missing if token not in known]
            if seen.rest is not None:
                bound = seen.rest
                break
            if missing and math.log(len(missing)) + bound <= math.log(tolerance) + _log_sum(list(known.values())):
                break
        return known | dict.fromkeys(missing, bound)

    def _seen(self, ids: TokenIds, wanted: Sequence[int], whole: bool) -> Any:
        allowed = frozenset(wanted)

        def read(answer: Any) -> Any:
            seen = self.dialect.seen(answer)
            if seen.chosen not in allowed or seen.chosen not in seen.values:
                raise PassingError(f"the token {seen.chosen}, which is none of the {len(allowed)} that were allowed")
            return seen

        result = self._post(self.dialect.look(ids, wanted, whole), read)
        self.count(len(ids))
        return result

    def _post(self, body: dict[str, Any], read: Callable[[Any], Any]) -> Any:
        return self.client.post("completions", {"model": self.client.spec.model, **body}, read)

    def _check_whole(self, ids: TokenIds, labels: LabelIds) -> None:
        """Find out whether probabilities are those among the whole vocabulary, also where the choice is limited."""
        if self._gives_whole is None:
            first, second = labels.terminal, labels.sequences[0][0]
            total = sum(math.exp(self._seen(ids, [token], True).values[token]) for token in (first, second))
            self._gives_whole = total <= 1 + _ROUNDING
        if not self._gives_whole:
            raise ConfigError(_NOT_RAW.format(url=self.client.spec.base_url))


_NOT_RAW = (
    "The server at {url} gives log-probabilities that depend on the tokens it may choose from. Expected those of the "
    "whole vocabulary: start vLLM with --logprobs-mode raw_logprobs, which is its default."
)


class _Session:
    """The questions of one call as the `LabelModel` of the search.

    Attributes:
        errors: By question, why it has no answer; it is not asked about again.
    """

    def __init__(self, engine: RemoteEngine, questions: Sequence[Question], labels: LabelIds, tolerance: float) -> None:
        self.errors: dict[int, ServerError] = {}
        self.tokens: TokenIds = tuple(sorted({token for ids in labels.sequences for token in ids} | {labels.terminal}))
        self._engine = engine
        self._questions = questions
        self._labels = labels
        self._tolerance = tolerance
        self._column = {token: i for i, token in enumerate(self.tokens)}
        self._written: list[TokenIds] = []  # by the number of an appended chain

    def first(self, normalise: bool) -> tuple[search.FloatArray, search.FloatArray | None]:
        # Where all labels begin alike, the search does not look here.
        return self._looks([(i, ()) for i in range(len(self._questions))], normalise, least=2)

    def extend(
        self, chains: Sequence[search.Extension], every: bool, normalise: bool
    ) -> tuple[list[int], search.FloatArray, search.FloatArray | None]:
        looks: list[tuple[int, TokenIds]] = []
        last = []
        for chain in chains:
            before = self._written[chain.after] if chain.after >= 0 else ()
            for n in range(1 if every else len(chain.ids), len(chain.ids) + 1):
                looks.append((chain.prompt, before + chain.ids[:n]))
            last.append(len(self._written))
            self._written.append(before + chain.ids)
        with self._engine.lock:
            self._engine.work.n_expansions += len(chains)
        return (last, *self._looks(looks, normalise))

    def _looks(
        self, looks: Sequence[tuple[int, TokenIds]], whole: bool, least: int = 1
    ) -> tuple[search.FloatArray, search.FloatArray | None]:
        """What follows each prompt and the part of a label behind it. Shapes: (n_looks, n_tokens), (n_looks,).

        Nobody is asked where fewer than `least` tokens are allowed; one alone is certain, unless the `whole` vocabulary
        counts.
        """
        logits = np.zeros((len(looks), len(self.tokens)), dtype=np.float32)
        least = least if whole else 2
        asked, prompts = [], []
        for row, (number, written) in enumerate(looks):
            wanted = self._following(self._questions[number].allowed, written)
            if len(wanted) >= least and number not in self.errors:
                prompt = self._questions[number].prompt
                asked.append((row, number))
                prompts.append(_Look((*prompt.ids, *written), prompt.n_shared, wanted))

        def ask(prompt: _Look) -> dict[int, float]:
            return self._engine.look(prompt.ids, prompt.wanted, whole=whole, tolerance=self._tolerance)

        for (row, number), values in zip(asked, self._engine.prefixes_first(prompts, ask)):
            if isinstance(values, ServerError):
                self.errors.setdefault(number, values)
                continue
            for token, value in values.items():
                logits[row, self._column[token]] = value
        return logits, np.zeros(len(looks), dtype=np.float32) if whole else None

    def _following(self, allowed: tuple[int, ...], written: TokenIds) -> tuple[int, ...]:
        """The tokens with which some allowed label goes on after what is written of it."""
        n = len(written)
        endings = ((*self._labels.sequences[i], self._labels.terminal) for i in set(allowed))
        return tuple(sorted({ids[n] for ids in endings if len(ids) > n and ids[:n] == written}))


@dataclass(frozen=True, slots=True)
class _Look(Prompt):
    """A prompt, with what is written of a label, and the tokens that are wanted after it."""

    wanted: tuple[int, ...] = ()


def _log_sum(values: Sequence[float]) -> float:
    return float(np.logaddexp.reduce(values))
