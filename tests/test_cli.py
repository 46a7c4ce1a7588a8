import json
import os
import signal
import subprocess
import sys
import time

import pytest
import spacy
from spacy.tokens import DocBin, Span
from test_corpus import TEXTS, fake_relations, make_nlp
from typer.testing import CliRunner

from spacy_relx.cli import app
from spacy_relx.cli._pipeline import entity_pipeline
from spacy_relx.errors import ConfigError, ModelNotFoundError

# `spacy_relx.cli.annotate` is the command; its module has the same name.
annotate_module = sys.modules["spacy_relx.cli.annotate"]


@pytest.fixture
def run():
    def run(*args, stdin=None):
        return CliRunner().invoke(app, [str(arg) for arg in args], input=stdin)

    return run


@pytest.fixture
def fake(monkeypatch):
    """The command with a pipeline whose relations need no model."""
    seen = []

    def load(name, settings):
        seen.append((name, settings))
        return make_nlp()

    monkeypatch.setattr(annotate_module, "load_pipeline", load)
    return seen


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def rows(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_spacy_has_the_commands():
    from spacy.cli._util import app as spacy_app
    from typer.main import get_command

    group = get_command(spacy_app).commands["relx"]
    assert set(group.commands) >= {"fetch", "annotate", "view"}


@pytest.mark.parametrize("module", [["spacy", "relx"], ["spacy_relx"]])
def test_runs_as_a_module(module):
    done = subprocess.run([sys.executable, "-m", *module, "--help"], capture_output=True, text=True, check=True)
    assert f"Usage: python -m {' '.join(module)}" in done.stdout
    assert "annotate" in done.stdout


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom spacy_relx.cli import app\n"
        "heavy = {'transformers', 'peft', 'bitsandbytes', 'spacy_relx.corpus'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("command", [[], ["fetch"], ["annotate"], ["view"]])
def test_help(run, command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


@pytest.mark.parametrize(
    "args",
    [
        ["annotate", "in.jsonl"],
        ["annotate", "in.jsonl", "out.jsonl", "--threshold", "2"],
        ["annotate", "in.jsonl", "out.jsonl", "--on-error", "perhaps"],
        ["annotate", "in.jsonl", "out.jsonl", "--config", "nowhere.cfg"],
        ["fetch", "--model", "nonsense"],
        ["fetch", "--model", "owner/name", "--verify"],
        ["view", "in.jsonl", "out.png"],
        ["view", "in.jsonl", "--min-score", "-1"],
        ["nonsense"],
    ],
)
def test_usage_errors_exit_with_2(run, args):
    result = run(*args)
    assert result.exit_code == 2, result.output


def test_annotate_and_go_on(run, fake, lines, tmp_path):
    out = tmp_path / "out.jsonl"
    result = run("annotate", lines, out, "--labels", "conll04", "--threshold", "0.5", "--model-preset", "SmolLM2")
    assert result.exit_code == 0, result.output
    assert result.stderr == f"12 documents in {out}; 0 failed.\n"
    assert result.stdout == ""
    assert len(rows(out)) == 12
    assert fake == [
        (
            entity_pipeline(),
            {
                "labels": {"@misc": "spacy-relx.Schema.v1", "name": "conll04"},
                "threshold": 0.5,
                "model": {"@architectures": "spacy-relx.SmolLM2.v1"},
            },
        )
    ]
    again = run("annotate", lines, out, "--labels", "conll04", "--threshold", "0.5", "--model-preset", "SmolLM2")
    assert "12 of them before" in again.stderr
    changed = run("annotate", lines, out, "--labels", "conll04", "--threshold", "0.7", "--model-preset", "SmolLM2")
    assert changed.exit_code == 1
    assert "threshold was 0.5, is 0.7" in changed.stderr
    assert "--overwrite" in changed.stderr
    assert run("annotate", lines, out, "--overwrite", "-q").exit_code == 0


def test_settings_from_a_config_file(run, fake, lines, tmp_path):
    config = tmp_path / "component.cfg"
    config.write_text(
        '[components.llama_relation_extractor]\nfactory = "llama_relation_extractor"\nthreshold = 0.3\ntop_k = 2\n'
    )
    schema = tmp_path / "schema.json"
    schema.write_text("{}")
    run("annotate", lines, tmp_path / "out.jsonl", "--config", config, "--threshold", "0.6", "--labels", schema)
    labels = {"@misc": "spacy-relx.Schema.v1", "path": str(schema)}
    assert fake[0][1] == {"threshold": 0.6, "top_k": 2, "labels": labels}
    schema.write_text('{"changed": 1}')
    result = run("annotate", lines, tmp_path / "out.jsonl", "-c", config, "--threshold", "0.6", "-l", schema)
    assert "labels_sha256 has changed" in result.stderr
    config.write_text('[nlp]\nlang = "en"\n')
    assert "has no block" in run("annotate", lines, tmp_path / "out.jsonl", "-c", config).stderr


@pytest.mark.parametrize(("on_error", "code", "n_rows"), [("log", 1, 3), ("skip", 0, 3), ("raise", 1, 1)])
def test_failing_documents(run, fake, tmp_path, on_error, code, n_rows):
    (tmp_path / "in.txt").write_text("Ann met Bob.\nfail\nCid")
    out = tmp_path / "out.jsonl"
    result = run("annotate", tmp_path / "in.txt", out, "--per-line", "--on-error", on_error)
    assert result.exit_code == code
    assert len(rows(out)) == n_rows
    assert (tmp_path / "out.jsonl.errors.jsonl").exists() == (on_error != "raise")
    assert ("out.jsonl.errors.jsonl lists them" in result.stderr) == (on_error == "log")


def test_streams(run, fake):
    result = run("annotate", "-", "-", "-q", stdin='{"text": "Ann met Bob."}\n')
    assert result.exit_code == 0
    assert json.loads(result.stdout)["relations"][0]["label"] == "next_to"
    assert result.stderr == ""


def test_errors_are_messages_and_debug_shows_them(run, fake, lines, tmp_path, monkeypatch):
    result = run("annotate", tmp_path / "nowhere.txt", tmp_path / "out.jsonl")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: The input")
    assert "Traceback" not in result.stderr
    assert fake == []  # before a pipeline is loaded
    monkeypatch.setattr(annotate_module, "load_pipeline", lambda name, settings: 1 / 0)
    result = run("annotate", lines, tmp_path / "out.jsonl")
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert "ZeroDivisionError" in result.stderr
    assert "--debug" in result.stderr
    result = run("annotate", lines, tmp_path / "out.jsonl", "--debug")
    assert isinstance(result.exception, ZeroDivisionError)


def test_interrupt_exits_with_130_and_the_run_goes_on(lines, tmp_path):
    script = (
        # A background job inherits an ignored interrupt; here it has to arrive.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"import sys, time; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "from test_corpus import make_nlp\n"
        "from spacy.language import Language\n"
        "import spacy_relx.cli; module = sys.modules['spacy_relx.cli.annotate']\n"
        "@Language.component('slow')\n"
        "def slow(doc):\n"
        "    time.sleep(0.05 if 'Bob9' not in doc.text or sys.argv[-1] == '-q' else 60)\n"
        "    return doc\n"
        "def load(name, settings):\n"
        "    nlp = make_nlp(); nlp.add_pipe('slow'); return nlp\n"
        "module.load_pipeline = load\n"
        "spacy_relx.cli.app()\n"
    )
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-c", script, "annotate", str(lines), str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(600):
            if out.exists() and len(rows(out)) >= 9:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr == "Stopped after 9 documents. Give the same command again to go on from there.\n"
    subprocess.run([*command, "-q"], check=True)
    assert [row["text"] for row in rows(out)] == TEXTS


def test_unknown_pipeline_says_what_to_do():
    with pytest.raises(ConfigError, match="spacy download no_such_pipeline"):
        annotate_module.load_pipeline("no_such_pipeline", {})


def test_component_is_added_or_kept(tmp_path):
    pytest.importorskip("spacy_relx.pipeline")
    nlp = annotate_module.load_pipeline("blank:en", {"threshold": 0.25})
    assert nlp.pipe_names == ["sentencizer", "llama_relation_extractor"]
    assert nlp.get_pipe_config("llama_relation_extractor")["threshold"] == 0.25
    nlp.to_disk(tmp_path / "saved")
    kept = annotate_module.load_pipeline(str(tmp_path / "saved"), {})
    assert annotate_module.component_name(kept) == "llama_relation_extractor"
    with pytest.raises(ConfigError, match="threshold cannot be set here"):
        annotate_module.load_pipeline(str(tmp_path / "saved"), {"threshold": 0.5})


def test_view_of_annotated_lines_and_docbin(run, fake, lines, tmp_path):
    for name in ("out.jsonl", "out.spacy"):
        run("annotate", lines, tmp_path / name)
        page = tmp_path / f"{name}.html"
        result = run("view", tmp_path / name, page, "--limit", "2")
        assert result.exit_code == 0, result.output
        assert result.stdout == f"{page}\n"
        assert "first 2 documents" in result.stderr
        html = page.read_text("utf8")
        assert html.count("next_to 0.10") >= 3
        assert ">in.jsonl:2<" in html
        assert ">in.jsonl:3<" not in html


def test_view_filters_and_default_name(run, tmp_path):
    nlp = spacy.blank("en")
    doc = nlp("Ann met Bob<script>.")
    doc.ents = [Span(doc, 0, 1, "PERSON"), Span(doc, 2, 3, "PERSON")]
    doc._.relations = [(doc.ents[0], "met", doc.ents[1], 0.9), (doc.ents[1], "saw", doc.ents[0], 0.2)]
    DocBin(docs=[doc], store_user_data=True).to_disk(tmp_path / "in.spacy")
    assert run("view", tmp_path / "in.spacy", "--min-score", "0.5").exit_code == 0
    html = (tmp_path / "in.html").read_text("utf8")
    assert "met 0.90" in html
    assert "saw" not in html
    assert "<script" not in html
    run("view", tmp_path / "in.spacy", "--label", "saw")
    assert "met 0.90" not in (tmp_path / "in.html").read_text("utf8")


def test_view_as_a_graph_of_all_documents(run, fake, lines, tmp_path):
    run("annotate", lines, tmp_path / "out.jsonl")
    page = tmp_path / "page.html"
    result = run("view", tmp_path / "out.jsonl", page, "--graph")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{page}\n", "")
    whole = page.read_text("utf8")
    assert "<title>out</title>" in whole
    assert whole.count('"label":"next_to"') > 1
    result = run("view", tmp_path / "out.jsonl", page, "--graph", "--limit", "1", "--max-relations", "1")
    assert "first 1 document is" in result.stderr
    assert page.read_text("utf8").count('"label":"next_to"') == 1
    run("view", tmp_path / "out.jsonl", page, "--graph", "--label", "nothing")
    assert "next_to" not in page.read_text("utf8")


@pytest.mark.parametrize(
    ("name", "content"), [("in.jsonl", "{}\n"), ("in.jsonl", "no\n"), ("in.spacy", "no"), ("in.x", "")]
)
def test_view_of_something_else(run, tmp_path, name, content):
    (tmp_path / name).write_text(content)
    result = run("view", tmp_path / name)
    assert result.exit_code == 1
    assert "Expected" in result.stderr


def test_rebuilt_doc_has_the_same_relations(tmp_path, run, fake):
    from spacy_relx._annotated import read_annotated

    text = "  Ann-Marie met\n\nBob's  crew\tin 東京. "
    (tmp_path / "in.txt").write_text(text)
    run("annotate", tmp_path / "in.txt", tmp_path / "out.jsonl")
    (doc,) = read_annotated(tmp_path / "out.jsonl")
    original = fake_relations(make_nlp()(text))
    assert doc.text == text
    assert [(e.text, e.label_) for e in doc.ents] == [(e.text, e.label_) for e in original.ents]
    assert doc._.triples == original._.triples
    assert len(doc._.triples) == 2


def test_fetch_embedded(run, monkeypatch, tmp_path):
    import spacy_relx.fetch

    (tmp_path / "weights").write_bytes(b"x" * 3_000_000)
    calls = []

    def fetch(**kwargs):
        calls.append(kwargs)
        kwargs["progress"]("Converting", 0.5)
        kwargs["progress"]("Converting", None)
        return tmp_path

    monkeypatch.setattr(spacy_relx.fetch, "fetch_embedded_base", fetch)
    result = run("fetch", "--from", tmp_path / "a.gguf", "--verify")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path} (3 MB)\n"
    assert calls[0]["source"] == tmp_path / "a.gguf"
    assert calls[0]["verify"] is True

    def fail(**kwargs):
        raise ModelNotFoundError("There is no network. Give --from FILE.")

    monkeypatch.setattr(spacy_relx.fetch, "fetch_embedded_base", fail)
    result = run("fetch")
    assert (result.exit_code, result.stderr) == (1, "Error: There is no network. Give --from FILE.\n")


def test_fetch_from_the_hub(run, monkeypatch, tmp_path):
    import spacy_relx.fetch

    asked = []
    monkeypatch.setattr(spacy_relx.fetch, "fetch_hub", lambda repo, **kwargs: asked.append((repo, kwargs)) or tmp_path)
    assert run("fetch", "--model", "Llama32GenTune").exit_code == 0
    assert [(repo.split("/")[0], kwargs) for repo, kwargs in asked] == [
        ("meta-llama", {}),
        ("Despina", {"kind": "adapter"}),
    ]
    run("fetch", "--model", "owner/name")
    assert asked[-1][0] == "owner/name"
