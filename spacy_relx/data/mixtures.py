"""The published training mixtures re_gentune, re_littune and re_mixtune: finished prompts, not annotated texts.

They are tables with the columns relation, prompt, dataset, and a split a file (`train_0` … `test_5`). `relx rows
--prompts` makes training rows of them, and `relx evaluate mixture` asks a model.

The reader that configs name, `spacy-relx.mixture.v1`, gives these rows and no training examples: a Doc of a finished
prompt would need mentions that nobody annotated. Its sentence and entities stand somewhere in the prompt's wording.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_relx.data.base import BadRow, OnError, Problem
from spacy_relx.data.files import table
from spacy_relx.errors import DataError, RelxWarning
from spacy_relx.training.rows import RowGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Names on the Hugging Face Hub.
MIXTURES = ("Despina/re_gentune", "Despina/re_littune", "Despina/re_mixtune")
COLUMNS = ("relation", "prompt", "dataset")
SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A finished prompt and the answer to it.

    Attributes:
        prompt: What the model reads.
        label: The relation it has to answer.
        dataset: The benchmark that the pair comes from.
        place: File and line, or row, for messages.
    """

    prompt: str
    label: str
    dataset: str
    place: str = field(default="", compare=False)


def read_prompts(
    path: Path | str,
    split: str | None = None,
    *,
    datasets: tuple[str, ...] | None = None,
    limit: int = 0,
    on_error: OnError = "skip",
    problems: list[Problem] | None = None,
) -> Iterator[PromptRow]:
    """Read finished prompts, in order.

    Args:
        path: A .parquet (with pyarrow), .jsonl, .json, .csv or .tsv file, or a folder of such files with a `split`.
        split: The split in that folder, such as "train_0"; its shards are read one after the other.
        datasets: Only rows of these benchmarks; None: all.
        limit: Most rows; 0: all.
        on_error: What to do with a row that cannot be used: "skip" adds it to `problems`, "raise" stops.
        problems: The list to add to.

    Raises:
        DataError: There is no such file or split, its columns are others, or a row cannot be used and `on_error` is
            "raise".
    """
    if on_error not in ("skip", "raise"):
        raise DataError(f"on_error is {on_error!r}. Expected 'skip' or 'raise'.")
    n = 0
    for file in prompt_files(path, split):
        for entry in table(file, COLUMNS):
            try:
                row = entry if isinstance(entry, Problem) else _row(*entry)
            except BadRow as error:
                row = Problem(entry[0], error.reason, error.detail)  # type: ignore[index]
            if isinstance(row, Problem):
                if on_error == "raise":
                    raise DataError(f"{row}. Mend the data, or let it be skipped.")
                if problems is not None:
                    problems.append(row)
            elif datasets is None or row.dataset in datasets:
                yield row
                n += 1
                if limit and n >= limit:
                    return


def make_mixture_reader(
    path: Path,
    split: str | None = None,
    datasets: list[str] | None = None,
    limit: int = 0,
    on_error: Any = "skip",
) -> Callable[..., Iterator[PromptRow]]:
    """Create the reader `spacy-relx.mixture.v1`: finished prompts for a config. Rows that are skipped are a warning.

    Args:
        path: As for `read_prompts`.
        split: As for `read_prompts`.
        datasets: Only rows of these benchmarks; None: all.
        limit: Most rows; 0: all.
        on_error: What a row that cannot be used does: "skip" tells of it and goes on, "raise" stops.
    """

    def read(nlp: object = None) -> Iterator[PromptRow]:  # readers of a config are given the pipeline
        problems: list[Problem] = []
        chosen = None if datasets is None else tuple(datasets)
        yield from read_prompts(path, split, datasets=chosen, limit=limit, on_error=on_error, problems=problems)
        if problems:
            count = f"{len(problems)} row was" if len(problems) == 1 else f"{len(problems)} rows were"
            warnings.warn(f"{path}: {count} skipped, such as {problems[0]}.", RelxWarning, stacklevel=2)

    return read


def prompt_files(path: Path | str, split: str | None = None) -> list[Path]:
    """Return the files of a split, in order: `<split>.<suffix>`, or shards such as `<split>-00000-of-00002.parquet`.

    Raises:
        DataError: There are none.
    """
    path = Path(path)
    if not path.is_dir():
        if split is not None:
            raise DataError(f"split is {split!r}, but {str(path)!r} is no folder. Expected a folder, or no split.")
        return [path]
    files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and not file.name.startswith("."))
    names = {file: re.sub(r"-\d+-of-\d+$", "", file.stem) for file in files}
    found = [file for file in files if names[file] == split]
    if not found:
        known = ", ".join(sorted(set(names.values()))) or "none"
        raise DataError(f"{str(path)!r} has no files of the split {split!r}. Splits there: {known}.")
    kinds = {file.suffix for file in found}
    if len(kinds) > 1:
        raise DataError(f"{str(path)!r} has the split {split!r} as {' and '.join(sorted(kinds))}. Expected one kind.")
    return found


def group_of(row: PromptRow, system: str = "") -> RowGroup:
    """Return a finished prompt as a group of one training row.

    The prompt becomes one user turn as it is. Whether the published column holds the user's part alone, or the system
    text and demonstrations too, is not documented; look at some rows, and give the system text where it is missing.

    Args:
        row: The finished prompt.
        system: A system text to put before it; "" for none.
    """
    return RowGroup((("system", system),) if system else (), ((row.prompt, row.label),))


def _row(place: str, record: dict[str, Any]) -> PromptRow:
    if not isinstance(record, dict):
        raise BadRow("a row is no object", repr(record)[:60])
    for name in COLUMNS:
        value = record.get(name)
        if not isinstance(value, str) or not value.strip():
            raise BadRow(f"the column {name} has no text", repr(value)[:60])
    return PromptRow(record["prompt"], record["relation"], record["dataset"], place)
