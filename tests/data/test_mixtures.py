"""Finished prompts of the published mixtures."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import spacy
from spacy.util import registry
from thinc.api import Config

from spacy_relx.data import Problem, PromptRow, read_prompts
from spacy_relx.errors import DataError, RelxWarning

FILE = Path(__file__).parent / "files" / "mixture.jsonl"
ROWS = [PromptRow("Which?\nAnswer:", "founded_by", "tacred"), PromptRow("What?", "Other", "semeval")]


def test_rows_and_problems() -> None:
    problems: list[Problem] = []
    assert list(read_prompts(FILE, problems=problems)) == ROWS
    assert [str(problem) for problem in problems] == [f"{FILE}:3: the column relation has no text: None"]
    with pytest.raises(DataError, match=r"mixture\.jsonl:3: the column relation has no text"):
        list(read_prompts(FILE, on_error="raise"))


def test_choice() -> None:
    assert list(read_prompts(FILE, limit=1)) == ROWS[:1]
    assert list(read_prompts(FILE, datasets=("semeval",))) == ROWS[1:]
    with pytest.raises(DataError, match="on_error is 'log'"):
        list(read_prompts(FILE, on_error="log"))  # type: ignore[arg-type]


def test_a_config_reads_them() -> None:
    text = f'[corpora]\n\n[corpora.prompts]\n@readers = "spacy-relx.mixture.v1"\npath = "{FILE.as_posix()}"\n'
    read = registry.resolve(Config().from_str(text))["corpora"]["prompts"]
    with pytest.warns(RelxWarning, match=r"1 row was skipped, such as .*mixture\.jsonl:3: the column relation"):
        assert list(read(spacy.blank("en"))) == ROWS
    chosen = registry.resolve(Config().from_str(f'{text}datasets = ["semeval"]\nlimit = 1\non_error = "raise"\n'))
    assert list(chosen["corpora"]["prompts"]()) == ROWS[1:]
    wrong = registry.resolve(Config().from_str(f'{text}on_error = "log"\n'))
    with pytest.raises(DataError, match="on_error is 'log'"):
        list(wrong["corpora"]["prompts"]())


def test_csv(tmp_path: Path) -> None:
    with (tmp_path / "train_0.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["prompt", "dataset", "relation"])
        rows.writerows([row.prompt, row.dataset, row.label] for row in ROWS)
    assert list(read_prompts(tmp_path / "train_0.csv")) == ROWS
    assert list(read_prompts(tmp_path, "train_0")) == ROWS


def test_splits_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for i, row in enumerate(ROWS):
        record = {"relation": row.label, "prompt": row.prompt, "dataset": row.dataset}
        (tmp_path / f"data/test_5-0000{i}-of-00002.jsonl").write_text(json.dumps(record))
    shutil.copy(FILE, tmp_path / "data/train_0.jsonl")
    assert list(read_prompts(tmp_path, "test_5")) == ROWS
    with pytest.raises(DataError, match=r"no files of the split 'test_4'. Splits there: test_5, train_0"):
        list(read_prompts(tmp_path, "test_4"))
    with pytest.raises(DataError, match="is no folder"):
        list(read_prompts(FILE, "train_0"))
    (tmp_path / "train_0.csv").write_text("x")
    with pytest.raises(DataError, match=r"as .csv and .jsonl. Expected one kind"):
        list(read_prompts(tmp_path, "train_0"))


def test_parquet_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train_0-00000-of-00001.parquet"
    with pytest.raises(DataError, match="does not exist"):
        list(read_prompts(path))
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"needs pyarrow. Run `pip install pyarrow`, or save the data as \.jsonl"):
        list(read_prompts(path))


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {
        "relation": [r.label for r in ROWS],
        "prompt": [r.prompt for r in ROWS],
        "dataset": ["tacred", "semeval"],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "train_0.parquet")
    assert list(read_prompts(tmp_path, "train_0")) == ROWS
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        list(read_prompts(tmp_path / "bad.parquet"))
