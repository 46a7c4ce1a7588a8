"""Exit codes, errors for programs, completion, and what a stopped command leaves behind."""

import json
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

import spacy_relx.export
from spacy_relx.cli import app
from spacy_relx.cli._common import EXIT_CODES


@pytest.fixture
def run():
    def run(*args, stdin=None, env=None):
        return CliRunner().invoke(app, [str(arg) for arg in args], input=stdin, env=env)

    return run


LINE = json.dumps(
    {
        "id": "a",
        "text": "Ann met Bob.",
        "ents": [
            {"start_char": 0, "end_char": 3, "label": "PERSON", "kb_id": "Q1"},
            {"start_char": 8, "end_char": 11, "label": "PERSON"},
        ],
        "relations": [
            {
                "head": {"start_char": 0, "end_char": 3, "label": "PERSON"},
                "tail": {"start_char": 8, "end_char": 11, "label": "PERSON"},
                "label": "met",
                "score": 0.5,
            }
        ],
    }
)


def error_of(result):
    return json.loads(result.stderr.splitlines()[-1])


def test_the_help_lists_the_exit_codes(run):
    shown = " ".join(run("--help").output.split())
    assert EXIT_CODES in shown
    assert "--json-errors" in shown


@pytest.mark.parametrize(
    ("args", "code", "error", "message"),
    [
        (["export", "nowhere.jsonl", "x.csv"], 1, "DataError", "does not exist"),
        (["export", "nowhere.jsonl", "x.xyz"], 1, "ConfigError", "does not say its format"),
        (["export"], 2, "UsageError", "Expected INPUT OUTPUT"),
        (["annotate", "a", "b", "--threshold", "3"], 2, "UsageError", "--threshold"),
        (["annotate", "a", "b", "--bogus"], 2, "UsageError", "--bogus"),
        (["evaluate", "score"], 2, "UsageError", "Missing"),
        (["nonsense"], 2, "UsageError", "nonsense"),
        (["info", "--pipeline", "nowhere"], 1, "ConfigError", "cannot be loaded"),
    ],
)
def test_errors_for_programs(run, tmp_path, monkeypatch, args, code, error, message):
    monkeypatch.chdir(tmp_path)
    for result in (run("--json-errors", *args), run(*args, env={"SPACY_RELX_JSON_ERRORS": "1"})):
        assert result.exit_code == code
        assert result.stdout == ""
        found = error_of(result)
        assert (found["error"], found["exit_code"]) == (error, code)
        assert message in found["message"]
    plain = run(*args)
    assert plain.exit_code == code
    assert not plain.stderr.splitlines()[-1].startswith("{")


def test_an_unforeseen_error_is_json_too(run, monkeypatch, tmp_path):
    monkeypatch.setattr(spacy_relx.export, "export", lambda *args, **kwargs: 1 / 0)
    found = error_of(run("--json-errors", "export", "-", tmp_path / "x.csv", stdin=LINE))
    assert found["error"] == "ZeroDivisionError"
    assert "--debug" in found["message"]


def test_export_reads_and_writes_pipes(run):
    result = run("export", "-", "-", "--format", "csv", stdin=LINE)
    assert result.exit_code == 0, result.output
    header, row = result.stdout.splitlines()
    assert header.startswith('"head","label","tail","score"')
    assert row.startswith('"Ann","met","Bob",0.5,"PERSON","PERSON","kb:Q1"')
    assert result.stderr == "1 relation of 1 document in standard output.\n"
    assert run("export", "-", "-", "--format", "csv", "-q", stdin=LINE).stderr == ""


def test_view_reads_a_pipe(run, tmp_path):
    assert run("view", "-", tmp_path / "x.html", stdin=LINE).exit_code == 0
    assert "met 0.50" in (tmp_path / "x.html").read_text("utf8")
    assert "Expected OUTPUT.html" in run("view", "-", stdin=LINE).stderr


def test_export_leaves_out_what_is_not_wanted(run, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text(f"{LINE}\n\n{LINE.replace('0.5', '0.9')}\n")
    for args, n in (
        [(), 2],
        [("--min-score", "0.6"), 1],
        [("--label", "met"), 2],
        [("-l", "saw"), 0],
        [("--merge",), 1],
    ):
        assert run("export", path, tmp_path / "x.csv", *args).exit_code == 0
        assert len((tmp_path / "x.csv").read_text().splitlines()) == n + 1
    assert run("export", path, path).exit_code == 2


def test_relations_of_an_entity_with_itself_are_told(run):
    line = LINE.replace("Bob", "ann")
    assert (
        "1 relation left out: both ends are one entity."
        in run("export", "-", "-", "-f", "nt", "--by-name", stdin=line).stderr
    )
    assert "left out" not in run("export", "-", "-", "-f", "csv", stdin=line).stderr  # tables have every place


def test_export_to_brat_and_back(run, tmp_path):
    assert run("export", "-", tmp_path / "brat", "--format", "brat", stdin=LINE).exit_code == 0
    assert run("export", "-", tmp_path / "brat", "--format", "brat", stdin=LINE).exit_code == 1
    assert run("export", "-", tmp_path / "brat", "--format", "brat", "--overwrite", stdin=LINE).exit_code == 0
    again = run("export", tmp_path / "brat", "-", "--format", "jsonl")
    (row,) = map(json.loads, again.stdout.splitlines())
    assert (row["head"], row["label"], row["tail"], row["doc"], row["head_kb_id"]) == ("Ann", "met", "Bob", "a", "Q1")


def test_export_of_rdf_takes_properties(run, tmp_path):
    mapping = tmp_path / "p.json"
    mapping.write_text('{"met": "schema:knows"}')
    args = ("--properties", mapping, "--base-iri", "https://example.org/", "--no-provenance")
    result = run("export", "-", "-", "-f", "nt", *args, stdin=LINE)
    assert "<https://schema.org/knows> <https://example.org/entity/PERSON/bob> ." in result.stdout
    broken = run("export", "-", "-", "-f", "nt", "--properties", "conll04", stdin=LINE)
    assert broken.exit_code == 1
    assert "There are no properties for 'conll04'" in broken.stderr


def test_the_formats_are_listed(run):
    shown = run("export", "--list").stdout
    assert all(name in shown for name in spacy_relx.export.FORMATS)


def test_a_broken_line_is_named(run, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text(f"{LINE}\n{{}}\n")
    result = run("export", path, tmp_path / "x.csv")
    assert result.exit_code == 1
    assert f"{path}:2 is not a line that annotate writes" in result.stderr
    assert list(tmp_path.iterdir()) == [path]


def test_a_closed_pipe_is_no_error(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text(f"{LINE}\n" * 2000)
    command = [sys.executable, "-m", "spacy_relx", "export", str(path), "-", "-f", "csv", "-q"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b'"head"')
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_ctrl_c_leaves_no_half_file(tmp_path):
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which the shell may have off
    code += "from spacy_relx.cli import main; main()"
    command = [sys.executable, "-c", code, "--json-errors", "export", "-", str(tmp_path / "x.csv")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdin.write(f"{LINE}\n")
        process.stdin.flush()
        for _ in range(1200):
            if (tmp_path / "x.csv.part").exists():
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        error = process.stderr.read()
    assert process.returncode == 130
    assert json.loads(error) == {"error": "Interrupted", "message": "Stopped.", "exit_code": 130}
    assert list(tmp_path.iterdir()) == []


def completions(line):
    env = {"_SPACY_RELX_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    return CliRunner().invoke(app, prog_name="spacy-relx", env=env).stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("spacy-relx exp", {"export"}),
        ("spacy-relx export a b --format t", {"turtle", "tsv"}),
        ("spacy-relx export a b --properties r", {"rebel", "redocred"}),
        ("spacy-relx annotate a b --labels sem", {"semeval2010_task8"}),
        ("spacy-relx annotate a b --model-preset L", {"Llama32GenTune"}),
        ("spacy-relx annotate a b --on-error r", {"raise"}),
        ("spacy-relx convert conll", {"conll04"}),
    ],
)
def test_the_shell_completes_commands_and_values(line, offered):
    assert set(completions(line)) == offered
