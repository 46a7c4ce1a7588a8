"""The command `convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.tokens import DocBin
from typer.testing import CliRunner

from spacy_relx.cli import app
from spacy_relx.data import DATASETS

FILES = Path(__file__).parent / "files"


def run(*args: object) -> Any:
    return CliRunner().invoke(app, ["convert", *map(str, args)])


def load(path: Path) -> list[Any]:
    return list(DocBin().from_disk(path).get_docs(spacy.blank("en").vocab))


def test_convert(tmp_path: Path) -> None:
    output = tmp_path / "new" / "kbp37.spacy"
    done = run("kbp37", FILES / "kbp37.txt", output)
    assert done.exit_code == 0, done.output
    assert [doc._.triples for doc in load(output)] == [
        [("Mira Oslund", "per:employee_of(e1,e2)", "Harbour Trust")],
        [("Velden", "no_relation", "Oslund")],
    ]
    rows = {cells[1].strip(): [c.strip() for c in cells[2:5]] for cells in (line.split("│") for line in lines(done))}
    assert rows["rows"] == ["3", "2", "1"]
    assert rows["negative pairs"] == ["", "1", ""]
    assert f"1 skipped rows: a marked entity is empty. First: {FILES / 'kbp37.txt'}:9" in done.output
    assert [path.name for path in output.parent.iterdir()] == ["kbp37.spacy"]


def lines(done: Any) -> list[str]:
    return [line for line in done.output.splitlines() if line.startswith("│")]


def test_several_inputs_and_options(tmp_path: Path) -> None:
    output = tmp_path / "out.spacy"
    both = (FILES / "conll04_tags.json", FILES / "conll04_spans.json")
    assert run("conll04", *both, output, "--quiet").output == ""
    assert len(load(output)) == 4
    assert run("redocred", FILES / "redocred.json", output, "--level", "document").exit_code == 0
    assert len(load(output)) == 1
    assert run("conll04", *both, output, "--limit", 1).exit_code == 0
    assert len(load(output)) == 1


def test_errors(tmp_path: Path) -> None:
    output = tmp_path / "out.spacy"
    done = run("kbp37", FILES / "kbp37.txt", output, "--on-error", "raise")
    assert (done.exit_code, output.exists()) == (1, False)
    assert "kbp37.txt:9: a marked entity is empty" in done.output
    assert "no data set 'kbp'" in run("kbp", FILES / "kbp37.txt", output).output
    assert "has no option 'level'" in run("kbp37", FILES / "kbp37.txt", output, "--level", "document").output
    assert "does not exist" in run("kbp37", tmp_path / "none.txt", output).output
    for args in (["kbp37"], ["kbp37", "only.txt"], ["kbp37", FILES / "kbp37.txt", tmp_path / "out.json"]):
        assert run(*args).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_list() -> None:
    done = run("--list")
    assert done.exit_code == 0
    for entry in DATASETS.values():
        assert f"{entry.name}: {entry.title}" in done.output
        assert f"licence: {entry.licence}" in done.output
        assert entry.source in done.output
    assert "test (conll04_test.json): 288 rows, 422 relations" in done.output


@pytest.mark.parametrize("entry", DATASETS.values(), ids=DATASETS)
def test_descriptions_agree_with_the_packaged_schemas(entry: Any) -> None:
    from spacy_relx.schema import bundled_schemas, make_schema

    assert entry.schema is None or entry.schema in bundled_schemas()
    if entry.schema and entry.name != "nyt11":  # one of its forms has a negative, the schema has none
        assert make_schema(entry.schema).no_relation == entry.negative  # type: ignore[union-attr]
