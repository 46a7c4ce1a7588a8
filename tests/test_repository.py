"""The files around the code: they agree with each other, and with what the package does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import spacy
import yaml
from script_loader import load_script

import spacy_relx

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf8"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_commits(path: Path) -> None:
    used = [step["uses"] for job in read(path)["jobs"].values() for step in job.get("steps", ()) if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) for action in used)


def test_only_the_job_that_publishes_may_speak_for_the_project() -> None:
    workflow = read(ROOT / ".github" / "workflows" / "release.yml")
    assert workflow["permissions"] == {}
    may = {name for name, job in workflow["jobs"].items() if "write" in job.get("permissions", {}).values()}
    assert may == {"publish"}
    assert not any("run" in step for step in workflow["jobs"]["publish"]["steps"])
    assert workflow["jobs"]["build"]["needs"] == "test"


def test_scripts_that_workflows_run_are_there() -> None:
    commands = [step["run"] for path in WORKFLOWS for job in read(path)["jobs"].values()
                for step in job.get("steps", ()) if "run" in step]  # fmt: skip
    named = [word for command in commands for word in command.split() if word.startswith((".ci/", "scripts/"))]
    assert len(named) == 2
    assert all((ROOT / name).is_file() for name in named)


def test_issue_forms_have_what_github_asks_for() -> None:
    forms = [path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"]
    assert len(forms) == 3
    for path in forms:
        form = read(path)
        assert {"name", "description", "body"} <= set(form)
        ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
        assert len(ids) == len(set(ids))
        assert all(part["attributes"].get("label") for part in form["body"] if part["type"] != "markdown")


def test_citation_names_this_version() -> None:
    citation = read(ROOT / "CITATION.cff")
    assert citation["version"] == spacy_relx.__version__
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_a_release_needs_all_places_to_agree(tmp_path: Path) -> None:
    check = load_script("check_release")
    version = spacy_relx.__version__
    for name in ("pyproject.toml", "spacy_relx/__init__.py", "CITATION.cff"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text("utf8"), encoding="utf8")
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text(f"# Changelog\n\n## {version} (unreleased)\n", encoding="utf8")
    assert [problem.split()[0] for problem in check.problems(f"v{version}", tmp_path)] == ["CHANGELOG.md"]
    changelog.write_text(f"# Changelog\n\n## {version} (2027-01-31)\n", encoding="utf8")
    assert check.problems(f"v{version}", tmp_path) == []
    assert len(check.problems("v99.0.0", tmp_path)) == 4
    assert "Expected v and three numbers" in check.problems(version, tmp_path)[0]


def test_the_universe_entry_is_valid_and_its_code_builds_the_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = json.loads((ROOT / "universe.json").read_text("utf8"))
    assert {"id", "title", "slogan", "description", "pip", "code_example", "author", "category", "tags"} <= set(entry)
    # No entities, no pairs, no model: this is about the names and the config that the entry shows.
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    monkeypatch.setattr(spacy, "load", lambda name: nlp)
    names: dict[str, Any] = {}
    exec("\n".join(entry["code_example"]), names)
    assert nlp.pipe_names == ["sentencizer", "llama_relation_extractor"]
    assert names["doc"]._.relations == []
