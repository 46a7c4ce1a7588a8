"""The adapters that come with the package: what is shipped, and how a pipeline finds it."""

import dataclasses
import json
from pathlib import Path

import pytest
import spacy
from tiny import FACTORY

import spacy_relx.adapters
from spacy_relx.adapters import packaged_adapter, packaged_adapters
from spacy_relx.engine.adapter import read_adapter
from spacy_relx.engine.resolve import local_adapter, resolve_adapter
from spacy_relx.engine.spec import EMBEDDED_ADAPTER, EMBEDDED_BASE, EMBEDDED_BASE_ON_HUB, ModelSpec
from spacy_relx.models import build_smollm2

MOST_BYTES = 12_000_000


def test_the_default_model_has_the_packaged_adapter() -> None:
    assert EMBEDDED_ADAPTER in packaged_adapters()
    spec = build_smollm2().shims[0].spec
    assert (spec.base, spec.adapter) == (EMBEDDED_BASE, EMBEDDED_ADAPTER)
    assert build_smollm2(adapter=None).shims[0].spec.adapter is None


@pytest.mark.parametrize("name", packaged_adapters())
def test_every_packaged_adapter_is_small_and_says_what_it_is(name: str) -> None:
    folder = packaged_adapter(name)
    assert folder is not None
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "training.json",
    }
    assert sum(path.stat().st_size for path in folder.iterdir()) <= MOST_BYTES
    adapter = read_adapter(folder)
    assert adapter.config["base_model_name_or_path"] == EMBEDDED_BASE_ON_HUB
    assert adapter.config["r"] == 16
    assert 0 < adapter.metadata["threshold"] < 1
    assert len(adapter.metadata["base_fingerprint"]) == 32
    card = (folder / "README.md").read_text(encoding="utf-8")
    for heading in ("In short", "Data", "Results", "Limits", "Licence", "Training"):
        assert f"\n## {heading}" in card
    facts = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    assert all(len(digest) == 64 for run in facts["runs"] for digest in run["corpora"].values())


def test_a_folder_of_that_name_is_not_taken_for_the_packaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / EMBEDDED_ADAPTER).mkdir()
    monkeypatch.chdir(tmp_path)
    spec = ModelSpec(EMBEDDED_BASE, EMBEDDED_ADAPTER)
    assert resolve_adapter(spec) == packaged_adapter(EMBEDDED_ADAPTER)
    assert local_adapter(ModelSpec(EMBEDDED_BASE)) is None
    assert local_adapter(ModelSpec(EMBEDDED_BASE, "someone/on-the-hub")) is None


def test_a_name_never_leaves_the_packaged_folder() -> None:
    assert packaged_adapter("..") is None
    assert packaged_adapter("../schemas") is None
    assert packaged_adapter("") is None


def test_a_saved_pipeline_takes_the_packaged_adapter_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe(FACTORY)
    nlp.to_disk(tmp_path / "pipeline")
    saved = tmp_path / "pipeline" / FACTORY / "adapter" / "adapter_model.safetensors"
    packaged = packaged_adapter(EMBEDDED_ADAPTER)
    assert packaged is not None
    assert saved.read_bytes() == (packaged / saved.name).read_bytes()
    # As under a later release, which may have another adapter.
    monkeypatch.setattr(spacy_relx.adapters, "_FOLDER", tmp_path)
    again = spacy.load(tmp_path / "pipeline")
    assert Path(again.get_pipe(FACTORY).model.shims[0].spec.adapter) == saved.parent


def test_the_packaged_adapter_belongs_to_the_embedded_base(embedded_base: Path) -> None:
    from spacy_relx.engine.loading import load_model

    loaded = load_model(ModelSpec(EMBEDDED_BASE, EMBEDDED_ADAPTER))
    assert loaded.adapter_info["metadata"]["base_fingerprint"] == loaded.base_fingerprint
    assert loaded.adapter_info["merged"]
    bare = load_model(ModelSpec(EMBEDDED_BASE))
    assert loaded.fingerprint != bare.fingerprint


def test_the_threshold_of_the_adapter_counts_where_nothing_else_is_set() -> None:
    nlp = spacy.blank("en")
    component = nlp.add_pipe(FACTORY, config={"labels": ["works_for", "born_in"]})
    threshold = read_adapter(packaged_adapter(EMBEDDED_ADAPTER)).metadata["threshold"]  # type: ignore[arg-type]
    assert component.default_threshold == 0.5  # nothing is loaded to look
    _ = component.model.shims[0].engine
    assert component.default_threshold == threshold
    component.settings = dataclasses.replace(component.settings, threshold=0.25)
    assert component.default_threshold == 0.25


def test_a_relation_that_a_reader_would_agree_with(embedded_base: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns(
        [
            {"label": "PERSON", "pattern": "Marie Curie"},
            {"label": "GPE", "pattern": "Warsaw"},
            {"label": "PERSON", "pattern": "Pierre Curie"},
        ]
    )
    nlp.add_pipe(FACTORY)
    doc = nlp("Marie Curie was born in Warsaw. She later married Pierre Curie.")
    assert ("Marie Curie", "born_in", "Warsaw") in doc._.triples
