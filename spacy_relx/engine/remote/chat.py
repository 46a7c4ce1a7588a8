"""A served model whose server renders the prompts: one request a pair, answered with a label.

What this cannot give: scores of the labels that were not chosen, so no `top_k` above 1 and no `sequence` scoring. And a
document that holds the text of a control token, such as `<|im_end|>`, may be able to end its turn: whether it can is
the server's business, and some let it.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spacy_relx._json import parse_json
from spacy_relx.engine.remote.base import ServedEngine
from spacy_relx.engine.remote.client import PassingError
from spacy_relx.engine.remote.dialects import GREEDY, log_prob
from spacy_relx.engine.remote.template import characters, text_of, turns_of
from spacy_relx.engine.search import DEFAULT_TOLERANCE
from spacy_relx.engine.types import DEFAULT_NEW_TOKENS, FreeAnswer, LabelScore, Prompt, Question, Ranking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spacy_relx.engine.remote.base import RemoteModel
    from spacy_relx.engine.remote.client import Client
    from spacy_relx.engine.types import LabelIds, Scoring

#: Log-probabilities a position: what these APIs give at most.
_TOP = {"tgi": 5}
_DEFAULT_TOP = 20

#: Tokens that the form around a label may take.
_TOKENS_OF_FORM = 16


class ChatEngine(ServedEngine):
    """Answers prompts by what a server writes.

    Args:
        client: Asks the server.
        loaded: What is known about the model.
        api: The server's dialect.
        choice_field: The field by which vLLM takes the allowed answers.
    """

    def __init__(self, client: Client, loaded: RemoteModel, api: str, choice_field: str = "structured_outputs") -> None:
        super().__init__(client, loaded)
        self.api = api
        self._choice_field = choice_field

    def rank(
        self,
        questions: Sequence[Question],
        labels: LabelIds,
        *,
        top_k: int = 1,
        scoring: Scoring = "trie",
        tolerance: float = DEFAULT_TOLERANCE,
    ) -> list[Ranking]:
        """Have the server choose a label for every question.

        The score is a lower bound from the likeliest tokens that the server reports: at each token of its answer, the
        share that the token has among those that go on, or may go on, to an allowed label.

        Raises:
            ConfigError: If more than the best label, or `sequence` scoring, is wanted.
            PartialAnswerError: If some questions could not be answered.
            ServerError: If none could.
        """
        self.client.spec.check_use(top_k, scoring)
        texts = [text_of(ids) for ids in labels.sequences]
        prompts = [_Choice(q.prompt.ids, q.prompt.n_shared, q.allowed) for q in questions]

        def one(prompt: _Choice) -> Ranking:
            return self._choose(prompt, texts)

        return self.in_text_order(prompts, lambda order: self.prefixes_first([prompts[i] for i in order], one))

    def decode(
        self, prompts: Sequence[Prompt], *, stop_ids: frozenset[int], max_new_tokens: int = DEFAULT_NEW_TOKENS
    ) -> list[FreeAnswer]:
        """Have the server write a free answer to every prompt.

        Raises:
            PartialAnswerError: If some prompts could not be answered.
            ServerError: If none could.
        """

        def one(prompt: Prompt) -> FreeAnswer:
            def read(answer: Any) -> FreeAnswer:
                text, tokens, reason = self._read(answer)
                text = text.encode("utf8", "replace").decode()  # half of a surrogate pair could not be saved
                return FreeAnswer(characters(text), min(sum(value for _, value, _ in tokens), 0.0), reason == "stop")

            result: FreeAnswer = self.client.post("chat/completions", self._body(prompt, max_new_tokens), read)
            self.count(len(prompt.ids) + len(result.ids))
            return result

        return self.in_text_order(prompts, lambda order: self.prefixes_first([prompts[i] for i in order], one))

    def _choose(self, prompt: _Choice, texts: Sequence[str]) -> Ranking:
        choices = {texts[i]: i for i in sorted(set(prompt.allowed))}
        if len(choices) == 1:
            return Ranking((LabelScore(prompt.allowed[0], 0.0),))
        most = max(len(text.encode()) for text in choices) + _TOKENS_OF_FORM

        def read(answer: Any) -> Ranking:
            text, tokens, reason = self._read(answer)
            label = self._label_in(text)
            if label not in choices:
                raise PassingError(
                    f"the answer {text[:80]!r} (ended by {reason!r}), which is none of the {len(choices)} labels: the "
                    f"server did not keep to them. Check model.api ({self.api!r}) and that the server has structured "
                    "output"
                )
            return Ranking((LabelScore(choices[label], estimate(text, label, list(choices), tokens)),))

        body = self._body(prompt, most) | self._constraint(list(choices))
        ranking: Ranking = self.client.post("chat/completions", body, read)
        self.count(len(prompt.ids))
        return ranking

    def _body(self, prompt: Prompt, max_tokens: int) -> dict[str, Any]:
        turns, template_kwargs = turns_of(prompt)
        body = {
            "model": self.client.spec.model,
            "messages": turns,
            **GREEDY.get(self.api, {"temperature": 0.0}),
            "max_completion_tokens" if self.api == "openai" else "max_tokens": max_tokens,
        }
        if self.client.spec.require_scores:
            body |= {"logprobs": True, "top_logprobs": _TOP.get(self.api, _DEFAULT_TOP)}
        if self.api in ("vllm", "llama_cpp"):
            body["chat_template_kwargs"] = template_kwargs
        return body

    def _constraint(self, choices: list[str]) -> dict[str, Any]:
        """What keeps a server to the labels."""
        if self.api == "vllm":
            return {self._choice_field: {"choice": choices} if self._choice_field == "structured_outputs" else choices}
        if self.api == "llama_cpp":
            return {"grammar": "root ::= " + " | ".join(json.dumps(text, ensure_ascii=False) for text in choices)}
        if self.api == "tgi":
            return {"response_format": {"type": "regex", "value": f"({'|'.join(map(re.escape, choices))})"}}
        # This API takes an object only.
        schema = {
            "type": "object",
            "properties": {"relation": {"type": "string", "enum": choices}},
            "required": ["relation"],
            "additionalProperties": False,
        }
        form = {"name": "relation", "strict": True, "schema": schema}
        return {"response_format": {"type": "json_schema", "json_schema": form}}

    def _label_in(self, text: str) -> str:
        if self.api != "openai":
            return text.strip()
        try:
            return str(parse_json(text)["relation"])
        except (ValueError, KeyError, TypeError):
            return text

    def _read(self, answer: Any) -> tuple[str, list[Token], str]:
        """The text that a server wrote, its tokens where it gives them, and why it ended."""
        try:
            choice = answer["choices"][0]
            text, reason = choice["message"]["content"], str(choice["finish_reason"])
            if not isinstance(text, str):
                raise TypeError(f"the content is {text!r}")
        except (KeyError, IndexError, TypeError) as error:
            raise PassingError(f"an answer without a message ({type(error).__name__}: {error})") from error
        if not self.client.spec.require_scores:
            return text, [], reason
        try:
            tokens = [_token(item) for item in choice["logprobs"]["content"]]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise PassingError(
                "an answer without log-probabilities, so there are no scores. Set model.require_scores to false to "
                "take the server's labels with the score 1.0"
            ) from error
        return text, tokens, reason


@dataclass(frozen=True, slots=True)
class _Choice(Prompt):
    """A prompt and the positions of the labels that may answer it."""

    allowed: tuple[int, ...] = ()


#: A token's text, its log-probability, and those of the likeliest tokens in its place.
Token = tuple[str, float, dict[str, float]]


def _token(item: Any) -> Token:
    value = log_prob(item["logprob"])
    top = {str(other["token"]): log_prob(other["logprob"]) for other in item.get("top_logprobs") or ()}
    return str(item["token"]), value, top


def estimate(text: str, label: str, choices: Sequence[str], tokens: Sequence[Token]) -> float:
    """A lower bound of a label's probability among the allowed ones, as a logarithm.

    Only the likeliest tokens of each place are known. Where labels part, those that are not known might all lead to
    other labels, so they are counted as if they did. Where the server reports what is left after its own constraint,
    nothing is unknown.

    Args:
        text: The answer.
        label: The label in it; what stands around it is taken to be the same for the others.
        choices: The allowed labels.
        tokens: The answer's tokens; none: 0.0.
    """
    before, found, after = text.rpartition(label)
    answers = [f"{before}{choice}{after}" for choice in choices] if found else [text]
    total, written = 0.0, ""
    for token, value, top in tokens:
        if len(answers) < 2 or not token or not text.startswith(written + token):
            break  # settled; or the end of the answer, or bytes that are no text
        going_on = [answer for answer in answers if answer.startswith(written + token)]
        unseen = 1.0 - sum(map(math.exp, {**top, token: value}.values()))
        same, others = [value], [math.log(unseen)] if unseen > 0 and going_on != answers else []
        for name in set(top) - {"", token}:
            leads_to = [answer for answer in answers if answer.startswith(written + name)]
            if leads_to:
                (same if leads_to == going_on else others).append(top[name])
        total += _log_sum(same) - _log_sum([*same, *others])
        written, answers = written + token, going_on
    return min(total, 0.0)


def _log_sum(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values)) if math.isfinite(top) else top
