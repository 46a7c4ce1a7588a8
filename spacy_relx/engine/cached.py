"""An engine that asks the model only what it has not asked it before, in this process or in another.

A question's key is made of everything that its answer depends on: the prompt's ids, the ids of all labels and which
of them may answer, the terminal, how the answer is decoded and scored, and what computes it (weights, adapter, number
format, quantisation, configuration of the model, engine, kind of device, versions). So a changed input is another
question. Weights that were changed since they were loaded have no key: then nothing is looked up or kept.

A found answer is, to the last bit, the one that was first computed. In a short number format, another pack might have
rounded its last digits differently: what a pack computes depends a little on which questions are in it, and here
those that are known are not.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from spacy_relx.cache import cache_dir
from spacy_relx.engine.answer_store import AnswerStore
from spacy_relx.engine.checkpoint import weight_files
from spacy_relx.engine.remote.base import RemoteModel
from spacy_relx.engine.search import DEFAULT_TOLERANCE
from spacy_relx.engine.types import DEFAULT_NEW_TOKENS, FreeAnswer, LabelIds, LabelScore, Ranking
from spacy_relx.errors import ConfigError, PartialAnswerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spacy_relx.engine.packed import PackedEngine
    from spacy_relx.engine.reference import ReferenceEngine
    from spacy_relx.engine.remote.chat import ChatEngine
    from spacy_relx.engine.remote.engine import RemoteEngine
    from spacy_relx.engine.types import Prompt, Question, Scoring

#: About a million answers.
DEFAULT_CACHE_BYTES = 256 * 2**20
_LEAST_BYTES = 2**16

#: To be raised when the engines come to answer a question differently within one version of the package.
_KEY_FORMAT = 1

#: Parts of a model's configuration that say where it is from, not what it computes.
_NOT_COMPUTED = ("_name_or_path", "transformers_version")

#: Whatever answers questions itself.
ComputingEngine: TypeAlias = "PackedEngine | ReferenceEngine | RemoteEngine | ChatEngine"

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer", Ranking, FreeAnswer)


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Where answers are kept, and how many bytes of them.

    Attributes:
        path: A folder; None: `answers` in the cache folder of this package.
        max_bytes: Size past which the answers that were used longest ago are dropped.

    Raises:
        ConfigError: If a value cannot be used.
    """

    path: str | None = None
    max_bytes: int = DEFAULT_CACHE_BYTES

    def __post_init__(self) -> None:
        if self.path is not None and not self.path.strip():
            raise ConfigError(f"model.path of the answer cache is {self.path!r}. Expected a folder, or null.")
        if self.max_bytes < _LEAST_BYTES:
            raise ConfigError(
                f"model.max_bytes of the answer cache is {self.max_bytes!r}. Expected a whole number of at least "
                f"{_LEAST_BYTES}."
            )

    def open(self) -> AnswerStore:
        """The store; nothing is read or written yet."""
        folder = cache_dir() / "answers" if self.path is None else Path(self.path).expanduser()
        return AnswerStore(folder, self.max_bytes)


class CachedEngine:
    """Answers from a store what was answered before, and asks an engine about the rest.

    Args:
        engine: The engine.
        store: Where answers are kept.
    """

    def __init__(self, engine: ComputingEngine, store: AnswerStore) -> None:
        self.engine = engine
        self.loaded = engine.loaded
        self.device = engine.device
        self.max_pack_tokens = engine.max_pack_tokens
        self.work = engine.work
        self._store = store
        self._identity = _identity(engine)
        self._counts = threading.Lock()

    def weights_changed(self) -> None:
        """Forget what was read from the weights; from now on, nothing is looked up or kept."""
        self.engine.weights_changed()

    def rank(
        self,
        questions: Sequence[Question],
        labels: LabelIds,
        *,
        top_k: int = 1,
        scoring: Scoring = "trie",
        tolerance: float = DEFAULT_TOLERANCE,
    ) -> list[Ranking]:
        """Find the most probable labels of every question, as the engine does."""

        def ask(part: Sequence[Question]) -> list[Ranking]:
            return self.engine.rank(part, labels, top_k=top_k, scoring=scoring, tolerance=tolerance)

        common = ["rank", labels.sequences, labels.terminal, top_k, scoring, tolerance]
        parts = [(question.prompt.ids, question.allowed) for question in questions]
        return self._answer(questions, common, parts, ask, _write_ranking, _read_ranking)

    def decode(
        self, prompts: Sequence[Prompt], *, stop_ids: frozenset[int], max_new_tokens: int = DEFAULT_NEW_TOKENS
    ) -> list[FreeAnswer]:
        """Continue every prompt greedily, as the engine does."""

        def ask(part: Sequence[Prompt]) -> list[FreeAnswer]:
            return self.engine.decode(part, stop_ids=stop_ids, max_new_tokens=max_new_tokens)

        common = ["decode", sorted(stop_ids), max_new_tokens]
        return self._answer(prompts, common, [prompt.ids for prompt in prompts], ask, _write_free, _read_free)

    def _answer(
        self,
        items: Sequence[_Item],
        common: object,
        parts: Sequence[object],
        ask: Callable[[Sequence[_Item]], list[_Answer]],
        write: Callable[[_Answer], object],
        read: Callable[[Any], _Answer],
    ) -> list[_Answer]:
        """Answer some items, each of which is asked in a `common` way about a part of its own."""
        if self.engine.n_weight_changes or not self._store.is_usable:
            return ask(items)
        context = _digest([_KEY_FORMAT, self._identity, common]).hex()
        keys = [_digest([context, part]) for part in parts]
        found = {key: read(json.loads(value)) for key, value in self._store.get(keys).items()}
        with self._counts:
            self.work.n_cached += sum(key in found for key in keys)
        missing = [i for i, key in enumerate(keys) if key not in found]
        if missing:
            failed: PartialAnswerError | None = None
            try:
                results: Sequence[Any] = ask([items[i] for i in missing])
            except PartialAnswerError as error:  # what was answered is kept, so that it is not asked again
                failed, results = error, error.results
            answers = {keys[i]: result for i, result in zip(missing, results) if not isinstance(result, Exception)}
            if not self.engine.n_weight_changes:  # another thread may have begun to train
                self._store.put({key: json.dumps(write(answer)).encode() for key, answer in answers.items()})
            found |= answers
            if failed is not None:
                errors = {keys[i]: result for i, result in zip(missing, results) if isinstance(result, Exception)}
                raise PartialAnswerError(str(failed), [found.get(key, errors.get(key)) for key in keys]) from failed
        return [found[key] for key in keys]


def _identity(engine: ComputingEngine) -> dict[str, Any]:
    """What computes the answers.

    Of a served model that is what its server says of itself: that the weights behind a name are others cannot be seen.
    Of one in this process, the fingerprint stands for weights, adapter, quantisation and number format. Of the base it
    has seen samples, and somebody may have edited a few rows between them: so size and time of its files count, too.
    """
    if isinstance(engine.loaded, RemoteModel):
        return {**engine.loaded.identity, "engine": type(engine).__name__, "versions": [version("spacy-relx")]}
    folder = engine.loaded.base_folder
    config = engine.loaded.model.config.to_dict()  # type: ignore[operator, union-attr]
    return {
        "weights": engine.loaded.fingerprint,
        "files": [] if folder is None else [_size_and_time(path) for path in weight_files(folder)],
        "config": {name: value for name, value in config.items() if name not in _NOT_COMPUTED},
        "engine": type(engine).__name__,
        "device": engine.device.type,
        "versions": [version(name) for name in ("spacy-relx", "torch", "transformers")],
    }


def _size_and_time(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


def _digest(value: object) -> bytes:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).digest()


# JSON holds a float to the last bit.


def _write_ranking(ranking: Ranking) -> object:
    return [[(score.label, score.log_prob) for score in ranking.scores], ranking.residual]


def _read_ranking(value: Any) -> Ranking:
    scores, residual = value
    return Ranking(tuple(LabelScore(label, log_prob) for label, log_prob in scores), residual)


def _write_free(answer: FreeAnswer) -> object:
    return [answer.ids, answer.log_prob, answer.finished]


def _read_free(value: Any) -> FreeAnswer:
    ids, log_prob, finished = value
    return FreeAnswer(tuple(ids), log_prob, finished)
