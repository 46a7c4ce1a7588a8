"""Tables and folders of others: values that JSON or Parquet cannot hold, damaged pages, and files that are not ours."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import spacy

import spacy_relx  # noqa: F401  (registers the extension)
from spacy_relx._inputs import Record, Source
from spacy_relx._outputs import Result
from spacy_relx._progress import encode_line
from spacy_relx.distributed.blocks import SUFFIXES, Block, plan, read
from spacy_relx.distributed.parts import Parts, prepare
from spacy_relx.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from spacy_relx.distributed.parts import Form

NLP = spacy.blank("en")
IDENTITY = {"input": {}, "options": {}}


def parts(folder: Path, form: Form = "jsonl") -> Parts:
    folder.mkdir(exist_ok=True)
    return Parts(folder, form, "relations", "run")


def begin(folder: Path, *, overwrite: bool = False) -> None:
    prepare(parts(folder), IDENTITY, [], resume=True, overwrite=overwrite)


def records(path: Path) -> list[Record]:
    source = Source(str(path), suffixes=SUFFIXES)
    return [record for block in plan(source, 2) for record in read(block, source, NLP.vocab)]


def table(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_ids_that_are_missing_null_or_no_number_are_made(tmp_path: Path) -> None:
    found = records(table(tmp_path / "in.parquet", text=list("abcd"), id=["x", None, "x", "../x"]))
    assert [record.id for record in found] == ["x", "in.parquet:2", "x", "../x"]
    found = records(table(tmp_path / "in.parquet", text=["a", "b"], id=[1.5, float("nan")]))
    assert [record.id for record in found] == [1.5, "in.parquet:2"]
    (tmp_path / "in.jsonl").write_text('{"text": "a", "id": null}\n{"text": "b", "id": NaN}\n{"text": "c", "id": 0}\n')
    assert [record.id for record in records(tmp_path / "in.jsonl")] == ["in.jsonl:1", "in.jsonl:2", 0]


def test_text_that_was_written_as_bytes_is_read(tmp_path: Path) -> None:
    raw = ["Café".encode(), "Łódź".encode(), b"\xff", None]
    found = records(table(tmp_path / "in.parquet", text=raw, raw=[b"a\xff"] * 4))
    assert [record.text for record in found] == ["Café", "Łódź", "", ""]
    assert [record.error is None for record in found] == [True, True, False, False]
    assert "not UTF-8" in str(found[2].error)
    assert found[0].meta == {"raw": "a\\xff"}


def test_a_damaged_row_group_is_named(tmp_path: Path) -> None:
    texts = ["word " * 50 + str(i) for i in range(2000)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet", compression="snappy", use_dictionary=False)
    data = bytearray((tmp_path / "in.parquet").read_bytes())
    data[200:10_000] = bytes(9_800)
    (tmp_path / "in.parquet").write_bytes(data)
    with pytest.raises(DataError, match=r"in.parquet' is damaged: its row group 0 cannot be read"):
        records(tmp_path / "in.parquet")


HOSTILE = [
    Record("\ud800", "a", {"\ud801": ["\udfff", {"x": float("nan")}], "y": float("inf"), "z": float("-inf")}),
    Record(float("inf"), "\ud800", error="\ud802"),
]


def test_lines_are_json_whatever_the_values_are() -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    line = encode_line({"a": [float("nan"), {"b": float("-inf")}], "c": "é\ud800\u2028"})
    assert json.loads(line, parse_constant=refuse) == {"a": [None, {"b": None}], "c": "é\ud800\u2028"}
    assert line.decode("utf8").count("\n") == 1


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_block_is_written_whatever_its_values_are(tmp_path: Path, form: Form) -> None:
    made = parts(tmp_path / "out", form)
    block = Block(0, "caf\udce9.jsonl", str(tmp_path), 0, 1, len(HOSTILE))
    results = [Result(record, None, record.error or "broken") for record in HOSTILE]
    assert made.write(block, results) == made.n_failed(0) == 2
    if form == "jsonl":
        found = [json.loads(line) for line in made.path(0).read_bytes().splitlines()]
        assert found[0]["meta"] == {"\ud801": ["\udfff", {"x": None}], "y": None, "z": None}
    else:
        found = pq.read_table(made.path(0)).to_pylist()
        assert json.loads(found[0]["meta"]) == {"?": ["?", {"x": None}], "y": None, "z": None}
        assert found[0]["provenance"]["file"] == "caf?.jsonl"
    assert len(found) == 2
    # Tried again, the block has no failures: what the first attempt listed is not counted any more.
    made.write(block, [Result(Record(i, "a"), NLP("a")) for i in range(2)])
    assert made.n_failed(0) == 0


def test_files_of_others_stay(tmp_path: Path) -> None:
    foreign = ["part-time-jobs.csv", "part-00000-3f.snappy.parquet", "part-000001.jsonl.bak", "notes.txt"]
    begin(tmp_path / "out")
    for name in [*foreign, "part-000000.jsonl", "part-000000.errors.jsonl", "part-1000000.parquet"]:
        (tmp_path / "out" / name).write_text("x")
    begin(tmp_path / "out")
    begin(tmp_path / "out", overwrite=True)
    assert sorted(os.listdir(tmp_path / "out")) == sorted([*foreign, "manifest.json"])


@pytest.mark.parametrize("content", [b"[]", b"{}", b"{", b"[" * 100_000, b"\xff", b'{"name": "an app"}'])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_manifest_of_something_else_is_left_alone(tmp_path: Path, content: bytes, overwrite: bool) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    (tmp_path / "part-000000.jsonl").write_text("x")
    with pytest.raises(DataError, match=r"manifest.json' (cannot be read|is not of annotate)"):
        begin(tmp_path, overwrite=overwrite)
    assert (tmp_path / "manifest.json").read_bytes() == content
    assert (tmp_path / "part-000000.jsonl").exists()
