"""Blocks in one process, without Ray: the plan, the parts, going on after a kill, and one process's own answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import DocBin
from tiny import TEXT, ScriptedEngine, load_tokenizer, pipeline, scripted

from spacy_relx._inputs import Source
from spacy_relx.corpus import annotate_corpus
from spacy_relx.distributed.annotate import MAX_TRIES, Worker, annotate_blocks, in_this_process
from spacy_relx.distributed.blocks import SUFFIXES, plan, read
from spacy_relx.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from spacy.language import Language

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [f"Steve Jobs founded Apple in {1900 + i}." for i in range(23)]
SCRIPT = {("Apple", "Steve Jobs"): {"founded_by": 0.9}, ("Steve Jobs", "Apple"): {"works_for": 0.8}}
VOCAB = spacy.blank("en").vocab


def make(tokenizer: Any, script: Any = SCRIPT) -> Language:
    nlp = pipeline(no_relation="no_relation", threshold=0.5)
    scripted(nlp, ScriptedEngine(tokenizer, script if callable(script) else dict(script)))
    return nlp


@pytest.fixture(scope="module")
def made(embedded_base: Path) -> Callable[[], Language]:
    return partial(make, load_tokenizer(embedded_base))


def write_corpus(path: Path, texts: list[str] = TEXTS) -> Path:
    rows = [{"text": text, "id": i, "tag": "ü"} for i, text in enumerate(texts)]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + ("\n\n" if i % 5 == 0 else "\n") for i, row in enumerate(rows)))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=9)
    else:
        docs = []
        for row in rows:
            doc = spacy.blank("en")(row["text"])
            doc.user_data["id"], doc.user_data["meta"] = row["id"], {"tag": "ü"}
            docs.append(doc)
        DocBin(docs=docs, store_user_data=True).to_disk(path)
    return path


def source(path: Path) -> Source:
    return Source(str(path), suffixes=SUFFIXES)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of all parts, in the order of the input, in the form of JSON Lines."""
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("part-*")):
        if path.suffix == ".parquet":
            for row in pq.read_table(path).to_pylist():
                row["id"], row["meta"] = json.loads(row["id"]), json.loads(row["meta"])
                for relation in row["relations"]:
                    del relation["inverse_label"]
                for ent in row["ents"]:
                    del ent["kb_id"]
                found.append(row if row["error"] is not None else {k: v for k, v in row.items() if k != "error"})
        elif not path.name.endswith(".errors.jsonl"):
            found += map(json.loads, path.read_bytes().splitlines())
    return found


@settings(max_examples=30, deadline=None)
@given(lines=st.lists(st.sampled_from(['{"text": "ü"}', "", "no json", "  "]), max_size=30), size=st.integers(1, 7))
def test_blocks_are_the_whole_input_in_order(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], size: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "in.jsonl"
    path.write_text("\n".join(lines))
    blocks = plan(source(path), size)
    assert [block.number for block in blocks] == list(range(len(blocks)))
    assert all(1 <= block.n_docs <= size for block in blocks)
    # Read backwards: no block needs those before it.
    parts = [list(read(block, source(path), VOCAB)) for block in reversed(blocks)]
    assert [len(part) for part in reversed(parts)] == [block.n_docs for block in blocks]
    assert [record for part in reversed(parts) for record in part] == list(source(path).read(VOCAB))


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "spacy"])
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_every_document_once_with_the_answers_of_one_process(
    made: Callable[[], Language], tmp_path: Path, kind: str, form: Any
) -> None:
    path = write_corpus(tmp_path / f"in.{kind}")
    summary = annotate_blocks(made, path, tmp_path / "out", form=form, block_size=5)
    assert (summary.n_docs, summary.n_resumed, summary.n_failed) == (23, 0, 0)
    found = rows(tmp_path / "out")
    provenance = [row.pop("provenance") for row in found]
    annotate_corpus(made(), Source(str(write_corpus(tmp_path / "one.jsonl"))), tmp_path / "one-out.jsonl")
    assert found == [json.loads(line) for line in (tmp_path / "one-out.jsonl").read_bytes().splitlines()]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert manifest["n_docs"] == 23
    assert {(p["file"], p["run"]) for p in provenance} == {(f"in.{kind}", manifest["run"])}
    assert [p["block"] for p in provenance] == sorted(p["block"] for p in provenance)


def test_a_run_that_was_killed_goes_on(tiny_llama: Path, tmp_path: Path) -> None:
    path = write_corpus(tmp_path / "in.jsonl")
    script = (
        "import os, signal, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from functools import partial\n"
        "from tiny import pipeline\n"
        "from spacy_relx.distributed.annotate import annotate_blocks\n"
        "def tell(n_done, n_failed):\n"
        "    if n_done >= 10: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"annotate_blocks(partial(pipeline, {str(tiny_llama)!r}), {str(path)!r}, {str(tmp_path / 'out')!r},\n"
        "    block_size=5, progress=tell)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], env={**os.environ}, check=False)
    assert killed.returncode == -signal.SIGKILL
    (tmp_path / "out" / ".tmp-left").write_bytes(b"half a part")
    before = {part: part.stat().st_mtime_ns for part in (tmp_path / "out").glob("part-*")}
    assert len(before) == 2
    made = partial(pipeline, tiny_llama)
    summary = annotate_blocks(made, path, tmp_path / "out", block_size=5)
    assert (summary.n_docs, summary.n_resumed) == (23, 10)
    assert all(part.stat().st_mtime_ns == time for part, time in before.items())
    assert not list((tmp_path / "out").glob(".tmp-*"))
    whole = annotate_blocks(made, path, tmp_path / "whole", block_size=5)
    assert whole.n_docs == 23
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")
    assert annotate_blocks(made, path, tmp_path / "out", block_size=5).n_resumed == 23


def test_a_block_that_is_done_twice_is_there_once(made: Callable[[], Language], tmp_path: Path) -> None:
    """What a cluster may do: a worker dies before it can tell, and the block goes to another one."""

    def twice(job: Any, blocks: list[Any]) -> Any:
        workers = [Worker(job), Worker(job)]
        for block in blocks:
            first = workers[0](block)
            job.parts.path(block.number).unlink()
            workers[0](block)
            assert workers[1](block).n_docs == first.n_docs
            yield first

    path = write_corpus(tmp_path / "in.jsonl")
    annotate_blocks(made, path, tmp_path / "out", twice, block_size=4)
    assert [row["id"] for row in rows(tmp_path / "out")] == list(range(23))


def test_failing_documents_are_listed_and_cost_no_others(embedded_base: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(embedded_base)
    script = {**SCRIPT, ("Apple", "Cupertino"): ValueError("this one fails")}
    path = tmp_path / "in.jsonl"
    texts = [*TEXTS[:6], "Apple is in Cupertino."]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts) + "no json\n")
    nlp = partial(make, tokenizer, script)
    for form in ("jsonl", "parquet"):
        summary = annotate_blocks(nlp, path, tmp_path / form, form=form, block_size=3)  # type: ignore[arg-type]
        assert (summary.n_docs, summary.n_failed) == (8, 2)
        assert annotate_blocks(nlp, path, tmp_path / form, form=form, block_size=3).n_failed == 2  # type: ignore[arg-type]
        (listed,) = (tmp_path / form).glob("*.errors.jsonl")
        assert [json.loads(line)["id"] for line in listed.read_bytes().splitlines()] == ["in.jsonl:7", "in.jsonl:8"]


def test_lost_blocks_are_told(made: Callable[[], Language], tmp_path: Path) -> None:
    path = write_corpus(tmp_path / "in.jsonl")
    lazy = lambda job, blocks: in_this_process(job, blocks[:-1])  # noqa: E731
    with pytest.raises(
        DataError, match=r"1 of 5 blocks are not written. The first is block 4, 3 documents of 'in.jsonl'"
    ):
        annotate_blocks(made, path, tmp_path / "out", lazy, block_size=5)
    assert annotate_blocks(made, path, tmp_path / "out", block_size=5).n_resumed == 20


def test_a_block_that_kills_every_process_is_given_up(embedded_base: Path, tmp_path: Path) -> None:
    """And the others are written: a cluster that replaces the dead would never come to an end."""
    tokenizer, out = load_tokenizer(embedded_base), tmp_path / "out"
    path = write_corpus(tmp_path / "in.jsonl", [*TEXTS[:12], "Apple is in Cupertino.", *TEXTS[12:]])
    deaths = []

    def die(head: str, tail: str) -> Any:
        if tail == "Cupertino":
            raise SystemExit
        return SCRIPT.get((head, tail), {})

    def replace_the_dead(job: Any, blocks: list[Any]) -> Any:
        worker = Worker(job)
        while blocks:
            try:
                yield worker(blocks[0])
            except SystemExit:
                deaths.append(blocks[0].number)
            else:
                blocks = blocks[1:]

    with pytest.raises(DataError, match=r"1 of 5 blocks .* block 2, 5 documents of 'in.jsonl' from number 13 on"):
        annotate_blocks(partial(make, tokenizer, die), path, out, replace_the_dead, block_size=5)
    assert deaths == [2] * MAX_TRIES
    summary = annotate_blocks(partial(make, tokenizer), path, out, block_size=5)
    assert (summary.n_docs, summary.n_resumed) == (24, 19)
    assert [row["id"] for row in rows(out)] == list(range(24))
    assert not list(out.glob(".tmp-*"))


def test_what_is_not_continued(made: Callable[[], Language], tmp_path: Path) -> None:
    path = write_corpus(tmp_path / "in.jsonl")
    out = tmp_path / "out"
    annotate_blocks(made, path, out, block_size=5)
    for options, message in (
        ({"block_size": 6}, "options"),
        ({"block_size": 5, "options": {"threshold": 0.7}}, "options"),
        ({"block_size": 5, "resume": False}, "--no-resume"),
    ):
        with pytest.raises(DataError, match=message):
            annotate_blocks(made, path, out, **options)  # type: ignore[arg-type]
    annotate_blocks(made, path, out, block_size=6, overwrite=True)
    assert [row["id"] for row in rows(out)] == list(range(23))
    write_corpus(path, TEXTS[:7])
    with pytest.raises(DataError, match="begun with another input"):
        annotate_blocks(made, path, out, block_size=6)
    (out / "manifest.json").unlink()
    with pytest.raises(DataError, match="has parts and no manifest"):
        annotate_blocks(made, path, out, block_size=6)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.parquet", b"no", "is not a Parquet file"),
        ("in.spacy", b"no", "is not a DocBin"),
        ("in.txt", b"no", "of no known kind. Expected one of .parquet, .jsonl, .spacy"),
    ],
)
def test_inputs_that_cannot_be_read(
    made: Callable[[], Language], tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        annotate_blocks(made, tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_settings_that_cannot_be(made: Callable[[], Language], tmp_path: Path) -> None:
    path = write_corpus(tmp_path / "in.jsonl")
    with pytest.raises(ConfigError, match="block_size is 0"):
        annotate_blocks(made, path, tmp_path / "out", block_size=0)
    with pytest.raises(ConfigError, match="form is 'csv'"):
        annotate_blocks(made, path, tmp_path / "out", form="csv")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="is in the input"):
        annotate_blocks(made, tmp_path, tmp_path / "out")
    assert {each.name for each in tmp_path.iterdir()} == {"in.jsonl"}  # no litter
    (tmp_path / "file").write_text(TEXT)
    with pytest.raises(DataError, match="is a file"):
        annotate_blocks(made, path, tmp_path / "file")


def test_what_parquet_needs_is_named(
    made: Callable[[], Language], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_corpus(tmp_path / "in.jsonl", TEXTS[:2])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match="Parquet needs pyarrow"):
        annotate_blocks(made, path, tmp_path / "out", form="parquet")
    assert annotate_blocks(made, path, tmp_path / "out").n_docs == 2
    assert {each.name for each in tmp_path.iterdir()} == {"in.jsonl", "out"}
