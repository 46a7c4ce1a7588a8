"""Machines that fail: full disks, processes that are killed, homes that cannot be written, memory that runs out."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from test_corpus import TEXTS, content, make_nlp
from tiny import TEXT, load_tokenizer, pipeline, rows, scripted

from spacy_relx import cache
from spacy_relx._progress import append
from spacy_relx.corpus import Source, annotate_corpus
from spacy_relx.errors import DeviceError, ModelError, OutputError

TESTS = Path(__file__).parent
PATIENCE = 900  # seconds; a process that hangs must not hang the tests, and a busy machine is no fault


def python(code: str, **environment: str) -> subprocess.Popen[str]:
    """Start a Python of its own; the tests' modules can be imported there."""
    lines = f"import sys; sys.path.insert(0, {str(TESTS)!r})\n{textwrap.dedent(code)}"
    return subprocess.Popen(
        [sys.executable, "-c", lines],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return out.strip()


# Full disks


def corpus_file(tmp_path: Path) -> Source:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(f'{{"text": "{text}"}}\n' for text in TEXTS))
    return Source(str(path))


class SmallDisk:
    """An unbuffered file on a disk with so many bytes left: what fits is written, and only then comes the error."""

    name = "small.jsonl"

    def __init__(self, room: int) -> None:
        self.room, self.written = room, b""

    def write(self, data: bytes) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        part = bytes(data[: self.room])
        self.room -= len(part)
        self.written += part
        return len(part)


def test_a_line_is_written_whole_or_fails() -> None:
    disk: Any = SmallDisk(10)
    append(disk, b"12345\n")
    with pytest.raises(OutputError, match=r"small\.jsonl' cannot be written: No space left.*same command again"):
        append(disk, b"67890\n")
    assert disk.written == b"12345\n6789"  # the next line would have been glued to this one


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX")
@pytest.mark.parametrize("suffix", ["jsonl", "spacy"])
def test_a_full_disk_stops_annotate_and_it_goes_on(tmp_path: Path, suffix: str) -> None:
    source, whole, cut = corpus_file(tmp_path), tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    annotate_corpus(make_nlp(), source, whole, batch_size=2, shard_size=3)
    n_bytes = whole.stat().st_size // 2
    process = python(
        f"""
        import resource, signal
        from test_corpus import *
        from spacy_relx.errors import OutputError
        nlp = make_nlp()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({n_bytes}, resource.RLIM_INFINITY))
        try:
            annotate_corpus(nlp, Source({source.path!r}), {str(cut)!r}, batch_size=2, shard_size=3)
        except OutputError as error:
            print("told:", error)
        """
    )
    assert "cannot be written: File too large" in finish(process)
    summary = annotate_corpus(make_nlp(), source, cut, batch_size=2, shard_size=3)
    assert summary.n_docs == len(TEXTS)
    assert content(cut) == content(whole)
    assert not list(tmp_path.glob("*.tmp"))


# Fetching


FETCH = """
import hashlib, os, time
from pathlib import Path
from spacy_relx import fetch
from spacy_relx.engine import gguf

root = Path(os.environ["SPACY_RELX_CACHE"])
source = root.parent / "model.gguf"

def convert(path, folder):
    (folder / "half").write_text("half")
    with (root.parent / "conversions").open("a") as file:
        file.write("x")
    time.sleep(float(os.environ["CONVERT_SECONDS"]))
    (folder / "half").rename(folder / "model.safetensors")
    return {"dtype": "float32"}

gguf.convert, gguf.check_gguf = convert, lambda path: None
fetch.GGUF_SHA256 = hashlib.sha256(source.read_bytes()).hexdigest()
print(fetch.fetch_embedded_base(source=source))
"""


def test_a_killed_fetch_leaves_nothing_that_counts(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF weights")
    root = tmp_path / "cache"
    killed = python(FETCH, SPACY_RELX_CACHE=str(root), CONVERT_SECONDS="100")
    while not (tmp_path / "conversions").exists():
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    assert not list(root.glob("models/*"))
    assert list(root.glob("tmp-*/model/half"))
    folder = Path(finish(python(FETCH, SPACY_RELX_CACHE=str(root), CONVERT_SECONDS="0")))
    assert cache.entry_is_complete(folder, verify=True)
    assert (folder / "model.safetensors").read_text() == "half"
    assert not list(root.glob("tmp-*"))


def test_processes_that_fetch_at_once_work_once(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF weights")
    both = [python(FETCH, SPACY_RELX_CACHE=str(tmp_path / "cache"), CONVERT_SECONDS="0.5") for _ in range(2)]
    assert len({finish(process) for process in both}) == 1
    assert (tmp_path / "conversions").read_text() == "x"
    assert not list((tmp_path / "cache").glob("tmp-*"))


# Homes


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="/proc is where not even root can make a folder")
def test_a_home_that_cannot_be_written(tiny_llama: Path) -> None:
    nowhere = "/proc/nobody"
    code = f"""
    from tiny import TEXT, model_block, pipeline
    print(len(pipeline({str(tiny_llama)!r})(TEXT)._.relations))
    cached = {{"@architectures": "spacy-relx.Cached.v1", "model": model_block({str(tiny_llama)!r})}}
    print(len(pipeline(model=cached)(TEXT)._.relations))
    """
    process = python(code, HOME=nowhere, XDG_CACHE_HOME=nowhere, SPACY_RELX_CACHE=f"{nowhere}/cache", HF_HOME=nowhere)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert out.split()[0] == out.split()[1] != "0"
    assert err.count("answers are computed anew and not kept") == 1
    with pytest.raises(ModelError, match=r"cannot be written.*SPACY_RELX_CACHE"):
        cache.scratch_folder(Path(nowhere) / "cache").__enter__()


# Memory


def failing_engine(nlp: Any, base: Path, error: Exception) -> None:
    """Give a pipeline an engine that fails as a device does at one document, however few of its pairs it is asked."""
    from tiny import ScriptedEngine

    from spacy_relx.engine.halving import in_halves

    class Failing:
        def __init__(self, engine: Any) -> None:
            self.__dict__.update(engine.__dict__)
            self.inner = engine

        def rank(self, questions: Any, *args: Any, **kwargs: Any) -> Any:
            def compute(part: Any) -> Any:
                if any("Greedy" in text for text in map(self.tokenizer.decode, (q.prompt.ids for q in part))):
                    raise error
                return self.inner.rank(part, *args, **kwargs)

            return [ranking for part in in_halves(questions, compute, lambda: None, "Shorten it.") for ranking in part]

    engine = ScriptedEngine(load_tokenizer(base), lambda head, tail: {"works_for": 0.9})
    scripted(nlp, Failing(engine))  # type: ignore[arg-type]


def test_a_document_without_enough_memory_costs_no_other(tiny_llama: Path, tmp_path: Path) -> None:
    nlp = pipeline()
    failing_engine(nlp, tiny_llama, MemoryError("no more"))
    (tmp_path / "in.txt").write_text(f"{TEXT}\nGreedy Steve Jobs met Apple.\n{TEXT}\n")
    summary = annotate_corpus(nlp, Source(str(tmp_path / "in.txt"), per_line=True), tmp_path / "out.jsonl")
    assert (summary.n_docs, summary.n_failed) == (3, 1)
    assert summary.errors is not None
    assert "Shorten it. The device said: no more" in summary.errors.read_text()
    assert rows(nlp(TEXT))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        getattr(torch, "AcceleratorError", RuntimeError)("CUDA error: unspecified launch failure"),
    ],
    ids=["by its words", "by its kind"],
)
def test_a_failed_device_ends_the_run_and_costs_no_document(tiny_llama: Path, tmp_path: Path, error: Exception) -> None:
    """Every later document would fail, too: taken for failures of documents, they would all be used up."""
    (tmp_path / "in.txt").write_text(f"{TEXT}\nGreedy Steve Jobs met Apple.\n{TEXT}\n")
    source = Source(str(tmp_path / "in.txt"), per_line=True)
    nlp = pipeline()
    failing_engine(nlp, tiny_llama, error)
    with pytest.raises(DeviceError, match=r"The device failed: CUDA error.*Begin again in a new process"):
        annotate_corpus(nlp, source, tmp_path / "out.jsonl")
    nlp = pipeline()
    failing_engine(nlp, tiny_llama, MemoryError())
    summary = annotate_corpus(nlp, source, tmp_path / "out.jsonl")
    assert (summary.n_docs, summary.n_failed) == (3, 1)
