"""The spaCy project: taken by weasel, made of commands that exist, and run from sentences to report."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.main import get_command
from weasel.cli.document import project_document
from weasel.util.config import load_project_config

from spacy_relx.cli import app
from spacy_relx.evaluation.records import PROTOCOLS
from spacy_relx.schema import make_schema

ROOT = Path(__file__).parents[1]
COMMAND_KEYS = {"name", "help", "script", "deps", "outputs", "outputs_no_cache", "no_skip"}


def load_script(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of what a user needs to run the project."""
    for name in ("project.yml", "assets.sha256"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("scripts", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def project(folder: Path) -> dict[str, Any]:
    """The project as weasel reads it, with the variables put in."""
    return load_project_config(folder)


def scripts(project: dict[str, Any]) -> list[list[str]]:
    return [shlex.split(line) for command in project["commands"] for line in command["script"]]


# The file


def test_weasel_takes_it(folder: Path, project: dict[str, Any]) -> None:
    assert {"all", "all_gpu", "smoke"} <= set(project["workflows"])
    for command in project["commands"]:
        assert set(command) <= COMMAND_KEYS
        assert command["help"]
        assert "${" not in " ".join(command["script"])
    assert all((folder / name).is_dir() for name in project["directories"])


def test_no_step_needs_what_no_step_before_it_makes(project: dict[str, Any]) -> None:
    commands = {command["name"]: command for command in project["commands"]}
    made_anywhere: set[str] = set()
    for command in commands.values():
        made_anywhere |= {*command.get("outputs", ()), *command.get("outputs_no_cache", ())}
    for command in commands.values():
        for needed in command.get("deps", ()):
            assert needed in made_anywhere or (ROOT / needed).exists(), needed
    for steps in project["workflows"].values():
        made: set[str] = set()
        for name in steps:
            assert {needed for needed in commands[name].get("deps", ()) if not (ROOT / needed).is_file()} <= made
            made |= {*commands[name].get("outputs", ()), *commands[name].get("outputs_no_cache", ())}


def test_what_a_step_promises_its_script_writes(project: dict[str, Any]) -> None:
    for command in project["commands"]:
        words = [word for line in command["script"] for word in shlex.split(line)]
        for output in (*command.get("outputs", ()), *command.get("outputs_no_cache", ())):
            written = any(Path(output) in (Path(word), *Path(word).parents) for word in words)
            assert written or output == "assets", (command["name"], output)


def test_files_that_are_read_are_made_or_here(project: dict[str, Any]) -> None:
    lines = scripts(project)
    known = {asset["dest"] for asset in project["assets"]}
    known |= {after for line in lines for option, after in pairwise(line) if option in ("--out", "-o", "--plot")}
    known |= {line[-1] for line in lines if "convert" in line}
    known |= {line[-1] for line in lines if "assemble" in line}
    roots = tuple(f"{name}/" for name in ("assets", "corpus", "runs", "reports", "configs", "scripts"))
    for line in lines:
        for word in line:
            if word.startswith(roots) and "package" not in line:
                assert word in known or (ROOT / word).exists(), word


def test_every_command_and_option_exists(project: dict[str, Any]) -> None:
    from spacy.cli._util import app as spacy_app

    for line in scripts(project):
        assert line[0] == "python"
        if line[1:3] == ["-m", "pip"]:
            assert line[3:-1] == ["install", "--quiet", "--no-deps", "--require-hashes", "-r"]
            assert (ROOT / line[-1]).is_file()
            continue
        if line[1] != "-m":
            text = (ROOT / line[1]).read_text(encoding="utf8")
            for option in line[2:]:
                # typer derives an option's name from its parameter's.
                name = option.removeprefix("--")
                assert not option.startswith("--") or f'"{option}"' in text or f"{name}: Annotated" in text, option
            continue
        assert line[2] == "spacy"
        words = line[3:]
        command: Any = get_command(app if words[0] == "relx" else spacy_app)
        words = words[1:] if words[0] == "relx" else words
        while words and words[0] in getattr(command, "commands", {}):
            command, words = command.commands[words[0]], words[1:]
        command.make_context(command.name, list(words), resilient_parsing=True)  # also counts the arguments
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("-") and word != "--"} <= known, line


def test_options_hold_values_that_the_commands_take(project: dict[str, Any]) -> None:
    from spacy_relx.data import DATASETS
    from spacy_relx.schema import bundled_schemas

    for line in scripts(project):
        pairs = dict(pairwise(line))
        if "--labels" in pairs:
            assert pairs["--labels"] in bundled_schemas()
        if "convert" in line:
            assert pairs["convert"] in DATASETS
        if "--protocol" in pairs:
            assert pairs["--protocol"] in PROTOCOLS


def test_a_package_goes_to_a_folder_that_is_there(project: dict[str, Any]) -> None:
    # spaCy makes the folders of a pipeline, but none for a package.
    (command,) = (command for command in project["commands"] if command["name"] == "package")
    assemble, package = (shlex.split(line) for line in command["script"])
    pipeline, folder = map(Path, package[4:6])
    assert Path(assemble[-1]) == pipeline
    assert folder in pipeline.parents


def test_every_protocol_is_evaluated_and_reported(project: dict[str, Any]) -> None:
    commands = {command["name"]: command["script"] for command in project["commands"]}
    for evaluate, report in (("evaluate", "report"), ("evaluate_gpu", "report_gpu")):
        made = [dict(pairwise(shlex.split(line))) for line in commands[evaluate]]
        assert {pairs["--protocol"] for pairs in made} == set(PROTOCOLS)
        shown = {word for line in commands[report] for word in shlex.split(line)}
        assert {pairs["--out"] for pairs in made} <= shown


def test_every_test_set_is_asked_about_as_published_too(project: dict[str, Any]) -> None:
    commands = {command["name"]: command for command in project["commands"]}
    for name in ("evaluate", "evaluate_gpu"):
        lines = [shlex.split(line) for line in commands[name]["script"]]
        published = [dict(pairwise(line)) for line in lines if "--published" in line]
        assert {line["--data"] for line in published} == {dict(pairwise(line))["--data"] for line in lines}
        for line in published:
            assert line["--out"] == f"runs/{Path(line['--out']).parent.name}/{line['--dataset']}.test.published.jsonl"
            assert ".test." not in line["--demonstrations"]
            assert {line["--data"], line["--demonstrations"]} <= set(commands[name]["deps"])
            assert int(line["--limit"]) > 0


def test_predicted_entities_get_types_that_the_labels_have(project: dict[str, Any]) -> None:
    lines = [line for line in scripts(project) if "predicted_entities" in line]
    assert lines
    for line in lines:
        schema = make_schema(name=dict(pairwise(line))["--labels"])
        known = {kind for label in schema for kind in (*label.head, *label.tail)}
        named = {after.partition("=")[2] for option, after in pairwise(line) if option == "--entity-type"}
        assert named == known


def test_thresholds_are_chosen_on_development_data_only(project: dict[str, Any]) -> None:
    lines = [shlex.split(line) for command in project["commands"] for line in command["script"]]
    written = {dict(pairwise(line))["--out"]: line for line in lines if "evaluate" in line and "--data" in line}
    chosen = {dict(pairwise(line))["--out"]: line[line.index("threshold") + 1] for line in lines if "threshold" in line}
    smoke = chosen.pop("runs/smoke.thresholds.json")  # shown, and used for nothing
    assert not any(smoke.replace(".jsonl", ".thresholds.json") in line for line in lines if "report" in line)
    for source in chosen.values():
        asked = dict(pairwise(written[source]))
        assert asked["--split"] == "dev"
        assert ".dev." in asked["--data"]
    used = {after for line in lines for option, after in pairwise(line) if option == "--thresholds"}
    assert used == set(chosen)


def test_the_report_has_thresholds_for_every_run_in_which_pairs_are_found(project: dict[str, Any]) -> None:
    (command,) = (command for command in project["commands"] if command["name"] == "report")
    words = shlex.split(" ".join(command["script"]))
    runs = {Path(word).name.removesuffix(".jsonl") for word in words if word.endswith("entities.jsonl")}
    thresholds = {Path(word).name.removesuffix(".thresholds.json") for word in words if "thresholds.json" in word}
    assert {run.replace(".test.", ".") for run in runs} == thresholds


# The assets


def test_every_asset_has_both_checksums_and_an_address(project: dict[str, Any]) -> None:
    lines = (ROOT / "assets.sha256").read_text().splitlines()
    digests = {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}
    assert set(digests) == {asset["dest"] for asset in project["assets"]}
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests.values())
    for asset in project["assets"]:
        assert re.fullmatch("[0-9a-f]{32}", asset["checksum"])
        assert asset["url"].startswith("https://")
        assert asset["description"]


def test_addresses_name_a_commit(project: dict[str, Any]) -> None:
    revisions = {asset["dest"]: asset["url"].split("/")[5] for asset in project["assets"]}
    moving = {dest for dest, revision in revisions.items() if not re.fullmatch("[0-9a-f]{7,40}", revision)}
    assert moving == {"assets/fewrel/val_wiki.json"}  # project.yml says why


def test_every_data_set_that_is_fetched_is_converted(project: dict[str, Any]) -> None:
    from spacy_relx.data import DATASETS

    read = {word for line in scripts(project) if "convert" in line for word in line}
    files = {f"assets/{split.file}" for entry in DATASETS.values() for split in entry.splits}
    assert {asset["dest"] for asset in project["assets"]} & files <= read


CONTENT = b"a data set\n"


@pytest.fixture
def small_project(tmp_path: Path) -> Path:
    asset = {"dest": "assets/one/a.txt", "url": "https://data.example/a.txt", "checksum": "0" * 32}
    (tmp_path / "project.yml").write_text(json.dumps({"assets": [asset]}))  # JSON is YAML
    (tmp_path / "assets.sha256").write_text(f"{hashlib.sha256(CONTENT).hexdigest()}  assets/one/a.txt\n")
    return tmp_path / "project.yml"


@pytest.fixture
def fetch_data() -> Any:
    return load_script(ROOT / "scripts" / "fetch_data.py")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def stream(method: str, url: str, **settings: Any) -> Any:
        asked.append(url)
        raise httpx.ConnectError("no route to host")

    monkeypatch.setattr(httpx, "stream", stream)
    return asked


def assert_nothing_is_left(project: Path) -> None:
    assert [path for path in (project.parent / "assets").rglob("*") if path.is_file()] == []


def test_a_mirror_is_used_before_the_network(
    small_project: Path, tmp_path: Path, fetch_data: Any, no_network: list[str]
) -> None:
    (tmp_path / "mirror" / "one").mkdir(parents=True)
    (tmp_path / "mirror" / "one" / "a.txt").write_bytes(CONTENT)
    fetch_data.main(small_project, mirror=str(tmp_path / "mirror"))
    assert (tmp_path / "assets" / "one" / "a.txt").read_bytes() == CONTENT
    fetch_data.main(small_project)  # what is here is not asked for again
    assert no_network == []


def test_the_network_is_used_where_the_mirror_lacks_a_file(
    small_project: Path, tmp_path: Path, fetch_data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=CONTENT))
    client = httpx.Client(transport=transport)
    monkeypatch.setattr(httpx, "stream", client.stream)
    fetch_data.main(small_project, mirror=str(tmp_path))
    assert (tmp_path / "assets" / "one" / "a.txt").read_bytes() == CONTENT


def test_another_file_is_refused(
    small_project: Path, tmp_path: Path, fetch_data: Any, no_network: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mirror" / "one").mkdir(parents=True)
    (tmp_path / "mirror" / "one" / "a.txt").write_bytes(b"another file")
    with pytest.raises(SystemExit, match="1 of 1 files are missing"):
        fetch_data.main(small_project, mirror=str(tmp_path / "mirror"))
    message = " ".join(capsys.readouterr().err.split())
    assert "is not the file that was asked for" in message
    assert_nothing_is_left(small_project)


def test_an_error_of_the_server_is_no_file(
    small_project: Path,
    fetch_data: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(404)))
    monkeypatch.setattr(httpx, "stream", client.stream)
    with pytest.raises(SystemExit):
        fetch_data.main(small_project)
    assert "404" in capsys.readouterr().err
    assert_nothing_is_left(small_project)


def test_without_a_network_the_address_is_named(
    small_project: Path, fetch_data: Any, no_network: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1 of 1 files are missing"):
        fetch_data.main(small_project)
    assert no_network == ["https://data.example/a.txt"]
    message = capsys.readouterr().err
    assert "https://data.example/a.txt" in message
    assert "--mirror" in message
    assert_nothing_is_left(small_project)


def test_an_unknown_data_set_is_an_error(small_project: Path, fetch_data: Any) -> None:
    with pytest.raises(SystemExit, match="has no assets in assets/two"):
        fetch_data.main(small_project, dataset="two")


# The run


@pytest.mark.model
@pytest.mark.usefixtures("embedded_base")
def test_smoke_runs(folder: Path) -> None:
    command = [sys.executable, "-m", "spacy", "project", "run", "smoke", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "corpus" / "smoke.spacy").is_file()
    reports = folder / "reports" / "smoke"
    assert {path.name for path in reports.iterdir()} >= {"report.html", "report.md", "report.json", "results.csv"}
    assert "SemEval" in (reports / "report.html").read_text(encoding="utf8")
    _, *records = (folder / "runs" / "smoke.jsonl").read_text(encoding="utf8").splitlines()
    assert len(records) == 6


# Its documentation


def test_the_readme_is_up_to_date(tmp_path: Path) -> None:
    readme = shutil.copy(ROOT / "README.md", tmp_path / "README.md")
    shutil.copy(ROOT / "project.yml", tmp_path)
    project_document(tmp_path, Path(readme), no_emoji=True)
    again = "python -m spacy project document --no-emoji --output README.md"
    assert Path(readme).read_text(encoding="utf8") == (ROOT / "README.md").read_text(encoding="utf8"), f"Run: {again}"
