"""The rivals: the way to another process and back with a fake, and what of each can run here."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import suite
from rivals import REMOTE, environments, glirel_backbone, llama_cpp_grammar, spacy_llm_rel
from rivals.remote import Remote, Unavailable
from rivals.serve import load_module

from spacy_relx.engine.loading import load_model
from spacy_relx.engine.spec import ModelSpec

FAKE = Path(__file__).with_name("fake_rival.py")
TASK: dict[str, Any] = {"prompts": [[1], [2]], "threads": 1, "batch": 2}


def test_there_and_back() -> None:
    with Remote(FAKE, threads=3) as remote:
        rival = remote.prepare(TASK)
        assert (rival.n_units, rival.unit, rival.facts) == (2, "pairs", {"threads": "3"})
        assert isinstance(rival.run(), float)


@pytest.mark.parametrize(
    ("fails", "why"),
    [("prepare", "ImportError: no module named anything"), ("run", "ValueError: nothing works"), ("die", "code 3")],
)
def test_what_fails_says_why(fails: str, why: str) -> None:
    with Remote(FAKE) as remote, pytest.raises(Unavailable, match=why):
        remote.prepare({**TASK, "fails": fails})


def test_no_rival_is_dropped_silently(tmp_path: Path) -> None:
    modules = {"fake": FAKE, "broken": FAKE, "llama.cpp": REMOTE["llama.cpp"]}
    with ExitStack() as stack:
        names = ["fake", "llama.cpp"]
        running, not_run = suite.start_rivals(names, TASK, None, tmp_path, stack, build=False, modules=modules)
        failing, why = suite.start_rivals(
            ["broken"], {**TASK, "fails": "run"}, None, tmp_path, stack, build=False, modules=modules
        )
    assert set(running) == {"fake"}
    assert not failing
    assert "--build" in not_run["llama.cpp"]
    assert "nothing works" in why["broken"]


def test_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert environments.python_of("none", [], tmp_path, build=False) == Path(sys.executable)
    with pytest.raises(Unavailable, match=r"needs one==1.*--build"):
        environments.python_of("a.b", ["one==1"], tmp_path, build=False)
    (tmp_path / "a-b").mkdir()
    (tmp_path / "a-b" / "installed.txt").write_text("one==1")
    assert (tmp_path / "a-b") in environments.python_of("a.b", ["one==1"], tmp_path, build=False).parents
    with pytest.raises(Unavailable, match="needs one==2"):
        environments.python_of("a.b", ["one==2"], tmp_path, build=False)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(environments.venv, "create", refuse)
    with pytest.raises(Unavailable, match="disk full"):
        environments.python_of("a.b", ["one==2"], tmp_path, build=True)


@pytest.mark.parametrize("name", REMOTE)
def test_rivals_say_what_they_are(name: str) -> None:
    module = load_module(REMOTE[name])
    assert module.ABOUT
    assert all("==" in requirement for requirement in module.REQUIREMENTS)


def test_a_grammar_of_labels() -> None:
    assert llama_cpp_grammar.label_grammar(["Work_For", 'so "called"']) == r'root ::= "Work_For" | "so \"called\""'


def test_llama_cpp_stops_at_the_end_of_an_answer() -> None:
    class Fake:
        def generate(self, prompt: list[int], **settings: Any) -> Any:
            assert settings["temp"] == 0.0
            yield from (5, 6, 0, 7)

    assert llama_cpp_grammar.answer(Fake(), [1, 2], None, 9, frozenset({0})) == [5, 6]
    assert llama_cpp_grammar.answer(Fake(), [1, 2], None, 1, frozenset({0})) == [5]
    with pytest.raises(ValueError, match="--gguf"):
        llama_cpp_grammar.prepare({**TASK, "gguf": None})


def test_the_backbone_of_glirel_runs() -> None:
    tiny = {"vocab_size": 1100, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    task = {
        **TASK,
        "device": "cpu",
        "dtype": "float32",
        "label_tokens": [2, 3],
        "document_tokens": [4, 9, 5],
        "config": {**tiny, "intermediate_size": 8},
    }
    # Two labels of five tokens, a marker before each and one after: eight more than the sentence.
    assert glirel_backbone.lengths(task) == [12, 17, 13]
    rival = glirel_backbone.prepare(task)
    assert [tuple(ids.shape) for ids, _ in rival.inputs] == [(2, 17), (1, 13)]
    assert rival.inputs[0][1].sum(dim=1).tolist() == [12, 17]
    rival.run()
    assert (rival.n_units, rival.unit, rival.facts["weights"]) == (3, "documents", "random")


def test_spacy_llm_is_given_our_model(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spacy_llm_rel, "_NEW_TOKENS", 2)
    model = spacy_llm_rel.LocalModel(str(tiny_llama), "float32", "cpu")
    ((answer,), ()) = model([["Which relations?"], []])
    assert isinstance(answer, str)
    assert 1 <= model.n_tokens <= 2


def test_a_task_is_plain(tiny_llama: Path) -> None:
    import json

    from rivals.task import make_task
    from workload import build_prompts, load_documents, questions_of

    loaded = load_model(ModelSpec(str(tiny_llama), dtype="float32", device="cpu"))
    documents = load_documents(None, 3)
    builder, labels = build_prompts(loaded.tokenizer, 0)
    work = questions_of(documents, builder, len(labels))
    task = make_task(loaded, tiny_llama, None, documents, work, labels, n_documents=1, threads=1, batch=4)
    assert json.loads(json.dumps(task)) == task
    assert task["labels"][-1] == "no_relation"
    assert len(task["documents"]) == 1 < len(task["document_tokens"]) == 3
    assert len(task["prompts"]) == task["documents"][0]["pairs"]
