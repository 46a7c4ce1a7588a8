"""Evaluation of finished prompts, such as those of the published mixtures: what is asked, recorded and counted.

A finished prompt is the model's whole question and has one right answer. It is no annotated text: there are no
mentions, so none of the protocols applies, and a row is a unit of its own. Answers are compared as in the published
evaluation, and the counting is that of `counts`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from spacy_relx.chat import Chat, open_chat
from spacy_relx.data.base import OnError, Problem
from spacy_relx.data.files import json_lines
from spacy_relx.engine.types import LabelIds, Question
from spacy_relx.errors import DataError, ModelError, PackBudgetError, PromptError
from spacy_relx.evaluation.bootstrap import intervals
from spacy_relx.evaluation.counts import NEGATIVE_LABELS, Tally, count_facts, normalise_answer, total
from spacy_relx.shim import engine_shim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from spacy_relx.data.mixtures import PromptRow
    from spacy_relx.engine.types import Prompt, Scoring
    from spacy_relx.pipeline import RelationExtractor
    from spacy_relx.settings import Decoding
    from spacy_relx.shim import EngineShim

#: Prompts that are put in order together, so that those with a common beginning meet in one pack.
BATCH_SIZE = 256

_Answer: TypeAlias = tuple[str, float]
_Made = TypeVar("_Made")

# Rows have no mentions, and a fact of `counts` lies between two.
_NOWHERE = (0, 0)


@dataclass(frozen=True, slots=True)
class PromptRecord:
    """One finished prompt and its answer.

    Attributes:
        place: File and line, or row, of the prompt.
        dataset: The benchmark that it comes from.
        gold: The right answer.
        answer: What the model wrote, or the label that it chose.
        score: Probability of the answer, 0..1.
        prompt: The prompt.
    """

    place: str
    dataset: str
    gold: str
    answer: str
    score: float
    prompt: str


@dataclass(frozen=True, slots=True)
class PromptRun:
    """What produced a file of such records.

    Attributes:
        source: The table or folder.
        split: The split that was read, if a folder.
        labels: By data set, the sorted gold labels of the whole split.
        settings: Model, system text, decoding.
        counts: `n_docs` (prompts that were read), `n_asked`, `unanswered` (what could not be asked), `seconds`.
    """

    source: str
    split: str | None
    labels: dict[str, list[str]]
    settings: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)


def labels_of(answers: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The sorted labels of each data set, from pairs of both."""
    found: dict[str, set[str]] = defaultdict(set)
    for dataset, label in answers:
        found[dataset].add(label)
    return {dataset: sorted(labels) for dataset, labels in sorted(found.items())}


def read_prompt_records(path: Path) -> tuple[PromptRun, Iterator[PromptRecord]]:
    """Read a file of such records.

    Raises:
        DataError: Naming the file and the line that cannot be read.
    """
    items = json_lines(path)

    def made(kind: type[_Made], item: Any) -> _Made:
        try:
            _, values = item  # a `Problem` cannot be taken apart
            return kind(**values)
        except TypeError as error:
            where = item.place if isinstance(item, Problem) else item[0] if item else f"{path}:1"
            raise DataError(f"{where} is not what `evaluate mixture` writes: {error}.") from error

    run = made(PromptRun, next(items, None))
    return run, (made(PromptRecord, item) for item in items)


def ask_prompts(
    component: RelationExtractor,
    rows: Iterable[PromptRow],
    run: PromptRun,
    *,
    system: str = "",
    decoding: Decoding = "free",
    max_new_tokens: int = 64,
    on_error: OnError = "skip",
    progress: Callable[[int], None] | None = None,
) -> Iterator[PromptRecord]:
    """Ask about finished prompts, each one user turn as it is.

    Args:
        component: Brings the model and the variables of its chat template; its labels and wording play no part.
        rows: The prompts.
        run: Its `labels` may answer under constrained decoding; its `counts` are kept up to date. With those of an
            earlier run in them, the prompts that were done then are passed over.
        system: A system text before each prompt; "" for none.
        decoding: "free" as published, or "constrained" to the labels of the prompt's data set.
        max_new_tokens: Most tokens of a free answer.
        on_error: What to do with a prompt that cannot be asked, such as one that is too long: "skip" or "raise".
        progress: Called after each batch with the number of prompts done.

    Yields:
        A record for every prompt that was answered, in order.

    Raises:
        DataError: If a prompt cannot be asked and `on_error` is "raise".
    """
    shim = engine_shim(component.model)
    turns = [{"role": "system", "content": system}] if system else []
    chat = open_chat(shim.engine.loaded.tokenizer, turns, component.settings.prompt.template_kwargs or {})
    if decoding == "free":
        answer = _free(shim, chat, max_new_tokens)
    else:
        answer = _constrained(shim, chat, run.labels, component.settings.scoring)
    counts = run.counts
    for name in ("n_docs", "n_asked", "seconds"):
        counts.setdefault(name, 0)
    counts.setdefault("unanswered", [])
    stream = islice(rows, counts["n_docs"], None)
    while batch := list(islice(stream, BATCH_SIZE)):
        start = time.perf_counter()
        results = _in_order(batch, chat, answer)
        counts["seconds"] = round(counts["seconds"] + time.perf_counter() - start, 3)
        counts["n_docs"] += len(batch)
        for row, result in zip(batch, results):
            if isinstance(result, Problem):
                if on_error == "raise":
                    raise DataError(f"{result}. Mend the data, or let it be skipped.")
                counts["unanswered"].append(str(result))
                continue
            counts["n_asked"] += 1
            text, score = result
            yield PromptRecord(row.place, row.dataset, row.label.strip(), text, score, row.prompt)
        if progress is not None:
            progress(counts["n_docs"])


def tally_prompts(run: PromptRun, records: Iterable[PromptRecord]) -> dict[str, dict[str, Tally]]:
    """Count every record: by data set, then by place.

    An answer that is no label of its data set is an invention: a false positive, and its gold label a miss.
    """
    names = {
        dataset: {normalise_answer(label): label for label in reversed(labels)}
        for dataset, labels in run.labels.items()
    }
    found: dict[str, dict[str, Tally]] = {}
    for record in records:
        known = names[record.dataset]
        gold, said = (_positive(normalise_answer(text), known) for text in (record.gold, record.answer))
        is_outside = said is not None and normalise_answer(said) not in known
        tally = count_facts(
            {(said, _NOWHERE, _NOWHERE): ("", "")} if said is not None and not is_outside else {},
            {(gold, _NOWHERE, _NOWHERE): ("", "")} if gold is not None else {},
            int(is_outside),
        )
        tally.n_gold_pairs = tally.n_reached = int(gold is not None)
        tally.n_negative = int(gold is None)
        tally.n_false_alarms = int(gold is None and said is not None)
        found.setdefault(record.dataset, {})[record.place] = tally
    return found


def summarise_prompts(
    run: PromptRun, records: Iterable[PromptRecord], *, n_rounds: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Score each data set.

    Args:
        run: The run.
        records: Its records.
        n_rounds: Resamples of the rows, for the confidence intervals; 0: none.
        seed: Of the resamples.

    Returns:
        `datasets`: by name `n_rows`, `micro`, `macro_f`, `false_positive_rate`, `n_outside`, `per_label`, `intervals`;
        and `mean_micro_f`, over the data sets with positive labels, None without any.
    """
    datasets: dict[str, Any] = {}
    for dataset, tallies in tally_prompts(run, records).items():
        tally = total(tallies.values())
        ranges = intervals(tallies, n_rounds=n_rounds, seed=seed) if n_rounds else {}
        datasets[dataset] = {
            "n_rows": len(tallies),
            "micro": tally.micro.to_dict(),
            "macro_f": tally.macro_f,
            "false_positive_rate": tally.false_positive_rate,
            "n_outside": tally.n_outside,
            "per_label": {label: counts.to_dict() for label, counts in tally.per_label.items()},
            "intervals": {name: interval.to_dict() for name, interval in ranges.items()},
        }
    scores = [found["micro"]["f"] for found in datasets.values() if found["micro"]["gold"]]
    return {"datasets": datasets, "mean_micro_f": sum(scores) / len(scores) if scores else None}


def _free(shim: EngineShim, chat: Chat, max_new_tokens: int) -> Callable[..., Any]:
    def answer(prompts: Sequence[Prompt], datasets: Sequence[str]) -> list[_Answer]:
        results = shim.engine.decode(prompts, stop_ids=chat.stop_ids, max_new_tokens=max_new_tokens)
        return [(chat.decode(result.ids), result.prob) for result in results]

    return answer


def _constrained(
    shim: EngineShim, chat: Chat, labels_of_dataset: Mapping[str, Sequence[str]], scoring: Scoring
) -> Callable[..., Any]:
    names = sorted({label for labels in labels_of_dataset.values() for label in labels})
    ids = LabelIds(tuple(map(chat.answer_ids, names)), chat.terminal)
    allowed = {dataset: tuple(map(names.index, labels)) for dataset, labels in labels_of_dataset.items()}

    def answer(prompts: Sequence[Prompt], datasets: Sequence[str]) -> list[_Answer]:
        questions = [Question(prompt, allowed[dataset]) for prompt, dataset in zip(prompts, datasets)]
        rankings = shim.engine.rank(questions, ids, top_k=1, scoring=scoring)
        return [(names[ranking.scores[0].label], ranking.scores[0].prob) for ranking in rankings]

    return answer


def _in_order(rows: Sequence[PromptRow], chat: Chat, answer: Callable[..., Any]) -> list[_Answer | Problem]:
    """Answer rows in the order of their tokens, in which what they share is computed once; return them in their own."""
    results: list[_Answer | Problem] = []
    prompts: dict[int, Prompt] = {}
    for i, row in enumerate(rows):
        results.append(Problem(row.place, "the prompt cannot be asked"))
        try:
            prompts[i] = chat.prompt(row.prompt)
        except PromptError as error:
            results[i] = Problem(row.place, "the prompt cannot be asked", str(error))
    order = sorted(prompts, key=lambda i: prompts[i].ids)

    def ask(numbers: Sequence[int]) -> None:
        try:
            answers = answer([prompts[i] for i in numbers], [rows[i].dataset for i in numbers])
        except (PackBudgetError, ModelError) as error:
            if len(numbers) == 1:
                results[numbers[0]] = Problem(rows[numbers[0]].place, "the prompt cannot be asked", str(error))
                return
            middle = len(numbers) // 2  # one is too long; the others still share what they can
            ask(numbers[:middle])
            ask(numbers[middle:])
            return
        for i, found in zip(numbers, answers):
            results[i] = found

    if order:
        ask(order)
    return results


def _positive(said: str, names: Mapping[str, str]) -> str | None:
    """The label that an answer is, or the answer itself where it is none; None for no relation."""
    return None if said in NEGATIVE_LABELS else names.get(said, said)
