"""`nlp.pipe(n_process=2)` gives what one process gives, under every way of starting processes, and never hangs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tiny import TEXT, model_block, pipeline, rows

if TYPE_CHECKING:
    from collections.abc import Mapping

TEXTS = [TEXT, "Nobody is named here.", "Apple is in Cupertino, said Steve Jobs.", "", "Ada Lovelace left Apple."] * 2
TIMEOUT = 150  # seconds; a process that hangs is killed, with its children

SCRIPT = """
import json, multiprocessing, sys
sys.path.insert(0, sys.argv[1])
arguments = json.loads(sys.argv[2])

def main():
    from tiny import pipeline, rows
    multiprocessing.set_start_method(arguments["method"])
    nlp = pipeline(arguments["base"], **arguments.get("config", {}))
    texts = arguments["texts"]
    if arguments["warm"]:
        nlp(texts[0])
    assert nlp.get_pipe("llama_relation_extractor")._shim.is_loaded == arguments["warm"]
    docs = list(nlp.pipe(texts, n_process=2, batch_size=2))
    assert nlp.get_pipe("llama_relation_extractor")._shim.is_loaded == arguments["warm"]
    assert [doc.text for doc in docs] == texts
    print(json.dumps([rows(doc) for doc in docs]))

if __name__ == "__main__":
    main()
"""


def run_script(tmp_path: Path, arguments: Mapping[str, Any]) -> tuple[int, str, str]:
    """Run the script in a process group of its own, so that a hang takes no worker with it into the next test."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(Path(__file__).parent), json.dumps(arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            out, err = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"nlp.pipe hung with {arguments['method']}, warm={arguments['warm']}")
    return process.returncode, out, err


@pytest.fixture(scope="module")
def expected(tiny_llama: Path) -> list[list[list[Any]]]:
    return [rows(doc) for doc in pipeline(tiny_llama).pipe(TEXTS)]


@pytest.mark.skipif(sys.platform == "win32", reason="knows only one of the ways")
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_worker_processes_give_the_same(
    tiny_llama: Path, tmp_path: Path, expected: list[list[list[Any]]], method: str, warm: bool
) -> None:
    arguments = {"method": method, "warm": warm, "base": str(tiny_llama), "texts": TEXTS}
    code, out, err = run_script(tmp_path, arguments)
    assert code == 0, err
    found = json.loads(out)
    assert sum(map(len, found)) == sum(map(len, expected)) > 0
    for doc, wanted in zip(found, expected):
        assert [row[:-1] for row in doc] == [row[:-1] for row in wanted]
        assert [row[-1] for row in doc] == pytest.approx([row[-1] for row in wanted], abs=1e-5)


def test_the_reference_engine_of_a_warm_parent(
    tiny_llama: Path, tmp_path: Path, expected: list[list[list[Any]]]
) -> None:
    config = {"model": model_block(tiny_llama, engine="reference")}
    arguments = {"method": "fork", "warm": True, "base": "", "texts": TEXTS, "config": config}
    code, out, err = run_script(tmp_path, arguments)
    assert code == 0, err
    for doc, wanted in zip(json.loads(out), expected):
        assert [row[:-1] for row in doc] == [row[:-1] for row in wanted]
        assert [row[-1] for row in doc] == pytest.approx([row[-1] for row in wanted], abs=1e-4)


@pytest.mark.skipif(sys.platform == "win32", reason="knows only one of the ways")
@pytest.mark.parametrize(("method", "warm"), [("fork", True), ("spawn", False)])
def test_workers_share_an_answer_cache(
    tiny_llama: Path, tmp_path: Path, expected: list[list[list[Any]]], method: str, warm: bool
) -> None:
    block = {"@architectures": "spacy-relx.Cached.v1", "path": str(tmp_path / "answers")}
    config = {"model": {**block, "model": model_block(tiny_llama)}}
    arguments = {"method": method, "warm": warm, "base": "", "texts": TEXTS, "config": config}
    code, out, err = run_script(tmp_path, arguments)
    assert code == 0, err
    assert "RelxWarning" not in err
    nlp = pipeline(**config)
    found = [rows(doc) for doc in nlp.pipe(TEXTS)]
    assert json.loads(out) == found
    assert nlp.get_pipe("llama_relation_extractor")._shim.engine.work.n_forward == 0
    for doc, wanted in zip(found, expected):
        assert [row[:-1] for row in doc] == [row[:-1] for row in wanted]
        assert [row[-1] for row in doc] == pytest.approx([row[-1] for row in wanted], abs=1e-5)


def test_a_gpu_in_worker_processes_is_refused_with_advice(tiny_llama: Path, tmp_path: Path) -> None:
    block = {"@architectures": "spacy-relx.CausalLM.v1", "base": str(tiny_llama), "device": "cuda"}
    arguments = {"method": "fork", "warm": False, "base": "", "texts": TEXTS[:2], "config": {"model": block}}
    code, _, err = run_script(tmp_path, arguments)
    assert code == 1
    assert "call nlp.pipe with n_process=1" in err
    assert "ConfigError" in err
