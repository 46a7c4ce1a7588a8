"""What an older release wrote is read by this one.

The files in `saved` were made by the release in their names; those of a new release go beside them and replace none.
"""

from __future__ import annotations

import ast
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import spacy
from packaging.requirements import Requirement
from packaging.version import Version
from spacy.tokens import DocBin
from tiny import FACTORY, TEXT, pipeline

import spacy_relx
from spacy_relx.errors import ConfigError

ROOT = Path(__file__).parents[1]
SAVED = sorted((Path(__file__).parent / "saved").glob("pipeline-*.zip"))


@pytest.fixture(params=SAVED, ids=[path.stem for path in SAVED])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with zipfile.ZipFile(request.param) as archive:
        archive.extractall(tmp_path)
    return tmp_path


@pytest.mark.model
@pytest.mark.filterwarnings("ignore:.*W095.*")  # spaCy's, where the pipeline was saved with a newer spaCy than this one
def test_a_saved_pipeline_loads_and_answers(saved: Path, tiny_llama: Path) -> None:
    # The base was at a place of its own on the machine that saved it; schema and adapter came along.
    nlp = spacy.load(saved, config={"components": {FACTORY: {"model": {"base": str(tiny_llama)}}}})
    component: Any = nlp.get_pipe(FACTORY)
    assert component.labels == ("founded.by", "works_for", "spouse", "based_in")
    assert component.schema["founded.by"].description == "costs $5"
    assert component.schema["works_for"].threshold == 0.125
    assert component.settings.prompt.cue == "Answer:"
    assert [example.label for example in component.settings.prompt.examples] == ["works_for"]
    assert (component.settings.top_k, component.settings.threshold) == (2, 0.0625)
    doc = nlp(TEXT)
    assert {relation.label for relation in doc._.relations} <= {*component.labels, "no_relation"}
    assert doc._.relations
    info = component._shim.engine.loaded.adapter_info
    assert info["metadata"] == {"threshold": 0.25, "schema": "x"}
    again = saved / "again"
    nlp.to_disk(again)
    assert [r.to_dict() for r in spacy.load(again)(TEXT)._.relations] == [r.to_dict() for r in doc._.relations]


def test_saved_documents_have_their_relations(saved: Path) -> None:
    (doc,) = DocBin().from_disk(saved / "docs.spacy").get_docs(spacy.blank("xx").vocab)
    (relation,) = doc._.relations
    assert isinstance(relation, spacy_relx.Relation)
    assert relation.triple == ("Apple", "founded.by", "Steve Jobs")
    assert (relation.score, relation.head.label_, relation.tail.label_) == (0.75, "ORG", "PERSON")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[" * 100_000,
        b"\xff",
        b"[]",
        b'{"schema": {"labels": ["a"]}}',
        b'{"schema": {"labels": ["a"]}, "prompt": {"system": 1, "user": "", "cue": "", "examples": []}}',
        b'{"schema": {"labels": ["a"]}, "prompt": {"system": "", "user": "", "examples": [], "new": 1}}',
        b'{"schema": {"labels": ["a"]}, "prompt": {"system": "", "user": "", "examples": [{"text": 1}]}}',
        b'{"schema": {"labels": [1]}, "prompt": {"system": "", "user": "", "examples": []}}',
    ],
)
def test_damaged_settings_of_a_saved_component(tmp_path: Path, content: bytes) -> None:
    component: Any = pipeline().get_pipe(FACTORY)
    before = component.settings
    (tmp_path / "settings.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"is damaged|labels\[0\] is 1"):
        component.from_disk(tmp_path)
    with pytest.raises(ConfigError, match="is damaged"):
        component.from_bytes(content)
    with pytest.raises(ConfigError, match="is damaged"):
        component.from_disk(tmp_path / "nowhere")
    assert component.settings is before


def test_the_oldest_tested_releases_are_those_that_are_allowed() -> None:
    """The pins of noxfile.py lie in the ranges of pyproject.toml, and no range begins above them."""
    (pins,) = (
        ast.literal_eval(node.value)
        for node in ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LOWEST"
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ranges = {found.name: found.specifier for found in map(Requirement, project["dependencies"])}
    assert {"spacy", "thinc", "torch", "transformers", "peft"} <= set(pins) <= set(ranges)
    for name, version in pins.items():
        assert ranges[name].contains(version), name
        (floor,) = (Version(part.version) for part in ranges[name] if part.operator == ">=")
        assert Version(version).release[:2] == (*floor.release, 0)[:2], name  # the oldest series, in a release that is
