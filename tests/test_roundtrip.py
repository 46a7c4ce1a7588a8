"""A pipeline that is saved, pickled or sent as bytes answers as before, wherever it is loaded."""

from __future__ import annotations

import json
import pickle
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import spacy
from spacy.lang.en import English
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from tiny import FACTORY, LABELS, TEXT, build_adapter, model_block, pipeline, rows

from spacy_relx.errors import ConfigError, SchemaError

if TYPE_CHECKING:
    from pathlib import Path

    from spacy.language import Language

# What spaCy's config format cannot hold: it is why these live in files.
AWKWARD = {
    "no_relation": "no_relation",
    "labels": {
        "/business/company/founders./x": {"head": ["ORG"], "tail": ["PERSON"], "description": "costs ${x} or $5: #1"},
        "works=for[ever]": {"head": ["PERSON"], "tail": ["ORG"], "inverse": "employer.of"},
        "member of": {"head": ["PERSON"], "tail": ["ORG"], "prompt": "is in", "threshold": 0.001},
    },
}
EXAMPLES = [{"text": "It cost $5 at ${x}, said Ann.", "head": "Ann", "tail": "$5", "label": "is in"}]
SYSTEM = "Answer with one of: {labels}\nIt costs ${nothing} and $5."


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "labels.json").write_text(json.dumps(AWKWARD))
    (folder / "examples.json").write_text(json.dumps(EXAMPLES))
    (folder / "system.txt").write_text(SYSTEM)
    build_adapter(folder / "adapter", metadata={"threshold": 0.0123})
    return folder


def with_files(base: Path, sources: Path) -> Language:
    return pipeline(
        model=model_block(base, adapter=str(sources / "adapter")),
        labels={"@misc": "spacy-relx.Schema.v1", "path": str(sources / "labels.json")},
        prompt={
            "@misc": "spacy-relx.GenTunePrompt.v1",
            "system": str(sources / "system.txt"),
            "examples": str(sources / "examples.json"),
        },
        threshold=None,
        top_k=3,
    )


def state(nlp: Language) -> Any:
    component = nlp.get_pipe(FACTORY)
    answers = rows(nlp(TEXT))
    assert answers
    return answers, component.schema, component.settings.prompt, component.default_threshold, component.labels


@pytest.mark.parametrize("same_folder", [False, True])
def test_inline_labels_survive_three_savings(tiny_llama: Path, tmp_path: Path, same_folder: bool) -> None:
    nlp = pipeline(tiny_llama, labels=LABELS | {'says "hi"': {"description": "a # b = [c]; d: é"}}, top_k=2)
    expected = state(nlp)
    for i in range(3):
        folder = tmp_path / ("saved" if same_folder else f"saved{i}")
        nlp.to_disk(folder)
        nlp = spacy.load(folder)
        assert state(nlp) == expected
    assert not (folder / FACTORY / "adapter").exists()


def test_files_travel_with_the_pipeline(tiny_llama: Path, sources: Path, tmp_path: Path) -> None:
    nlp = with_files(tiny_llama, sources)
    expected = state(nlp)
    assert expected[3] == 0.0123
    for i in range(3):
        nlp.to_disk(tmp_path / f"saved{i}")
        if i == 0:
            shutil.rmtree(sources)
        else:
            shutil.rmtree(tmp_path / f"saved{i - 1}")
        nlp = spacy.load(tmp_path / f"saved{i}")
        assert state(nlp) == expected
    nlp.to_disk(tmp_path / "saved2")  # onto the folder it was loaded from
    assert state(spacy.load(tmp_path / "saved2")) == expected
    moved = shutil.move(tmp_path / "saved2", tmp_path / "elsewhere")
    assert state(spacy.load(moved)) == expected


def test_what_is_saved_wins_over_files_that_changed(tiny_llama: Path, sources: Path, tmp_path: Path) -> None:
    nlp = with_files(tiny_llama, sources)
    expected = state(nlp)
    nlp.to_disk(tmp_path / "saved")
    (sources / "labels.json").write_text(json.dumps({"labels": ["other", "labels"]}))
    (sources / "examples.json").write_text(json.dumps([EXAMPLES[0] | {"label": "other"}]))
    (sources / "system.txt").write_text("Something else.")
    shutil.rmtree(sources / "adapter")
    build_adapter(sources / "adapter", seed=99)
    assert state(spacy.load(tmp_path / "saved")) == expected


def test_saving_before_the_first_use_saves_all(tiny_llama: Path, sources: Path, tmp_path: Path) -> None:
    expected = state(with_files(tiny_llama, sources))
    nlp = with_files(tiny_llama, sources)
    nlp.to_disk(tmp_path / "saved")
    data = nlp.to_bytes()
    assert not nlp.get_pipe(FACTORY)._shim.is_loaded
    shutil.rmtree(sources)
    loaded = spacy.load(tmp_path / "saved")
    assert not loaded.get_pipe(FACTORY)._shim.is_loaded
    assert state(loaded) == expected
    assert state(English.from_config(nlp.config, meta=nlp.meta).from_bytes(data)) == expected


def test_bytes_three_times_over(tiny_llama: Path, sources: Path) -> None:
    nlp = with_files(tiny_llama, sources)
    expected = state(nlp)
    for _ in range(3):
        config, meta, data = nlp.config, nlp.meta, nlp.to_bytes()
        shutil.rmtree(sources, ignore_errors=True)
        nlp = English.from_config(config, meta=meta).from_bytes(data)
        assert state(nlp) == expected


def test_missing_files_without_the_meta_say_what_to_do(tiny_llama: Path, sources: Path) -> None:
    nlp = with_files(tiny_llama, sources)
    shutil.rmtree(sources)
    with pytest.raises(SchemaError, match=r"labels\.json.*check the path") as caught:
        English.from_config(nlp.config)
    assert any("from_config(config, meta=nlp.meta)" in note for note in caught.value.__notes__)


def test_pickled_pipeline(tiny_llama: Path, sources: Path) -> None:
    nlp = with_files(tiny_llama, sources)
    cold, expected = pickle.dumps(nlp), state(nlp)
    warm = pickle.dumps(nlp)
    assert len(pickle.dumps(nlp.get_pipe(FACTORY))) < 100_000  # neither weights nor tokenizer
    for data in (cold, warm):
        assert state(pickle.loads(data)) == expected


def test_pickled_after_bytes_takes_the_adapter_along(tiny_llama: Path, sources: Path) -> None:
    nlp = with_files(tiny_llama, sources)
    expected = state(nlp)
    copy = English.from_config(nlp.config, meta=nlp.meta).from_bytes(nlp.to_bytes())
    shutil.rmtree(sources)
    data = pickle.dumps(copy)
    del copy  # and with it the folder in which it kept the adapter
    assert state(pickle.loads(data)) == expected


def test_an_adapter_of_an_earlier_saving_is_gone(tiny_llama: Path, sources: Path, tmp_path: Path) -> None:
    with_files(tiny_llama, sources).to_disk(tmp_path / "saved")
    bare = pipeline(tiny_llama)
    expected = state(bare)
    bare.to_disk(tmp_path / "saved")
    assert not (tmp_path / "saved" / FACTORY / "adapter").exists()
    assert state(spacy.load(tmp_path / "saved")) == expected


def test_adapter_alone_changes_the_answers(tiny_llama: Path, sources: Path) -> None:
    """Or the tests above would prove nothing."""
    bare = pipeline(tiny_llama)
    adapted = pipeline(model=model_block(tiny_llama, adapter=str(sources / "adapter")))
    assert rows(bare(TEXT)) != rows(adapted(TEXT))


@pytest.mark.parametrize("block", ["labels", "prompt"])
def test_a_missing_file_is_an_error_when_the_component_is_added(tmp_path: Path, block: str) -> None:
    missing = str(tmp_path / ("labels.json" if block == "labels" else "system.txt"))
    config = (
        {"labels": {"@misc": "spacy-relx.Schema.v1", "path": missing}}
        if block == "labels"
        else {"prompt": {"@misc": "spacy-relx.GenTunePrompt.v1", "system": missing}}
    )
    with pytest.raises(ConfigError, match="check the path"):
        pipeline(**config)


def test_results_survive_every_way_a_doc_travels(tiny_llama: Path, tmp_path: Path) -> None:
    nlp = pipeline(tiny_llama)
    doc = nlp(TEXT)
    expected = rows(doc)
    assert len(expected) == 5
    assert rows(Doc(nlp.vocab).from_bytes(doc.to_bytes())) == expected
    doc.to_disk(tmp_path / "doc")
    assert rows(Doc(nlp.vocab).from_disk(tmp_path / "doc")) == expected
    assert rows(pickle.loads(pickle.dumps(doc))) == expected
    for store in (True, False):
        (binned,) = DocBin(docs=[doc], store_user_data=store).get_docs(spacy.blank("en").vocab)
        assert rows(binned) == (expected if store else [])
    spacy.blank("en").create_pipe("merge_entities")(doc)
    assert [row[6:] for row in rows(doc)] == [row[6:] for row in expected]


# Another owner of Doc._.relations.


@pytest.fixture
def other_owner() -> Any:
    registered = Doc.get_extension("relations")
    Doc.set_extension("relations", default="somebody else's", force=True)
    yield
    Doc.set_extension("relations", getter=registered[2], setter=registered[3], force=True)


@pytest.mark.usefixtures("other_owner")
def test_another_owner_of_the_attribute(tiny_llama: Path, tmp_path: Path) -> None:
    from spacy_relx.errors import ExtensionError

    assert spacy.blank("en")("text")._.relations == "somebody else's"
    with pytest.raises(ExtensionError, match=r'Doc\._\.relations is already registered.*"attr": "relx_relations"'):
        pipeline(tiny_llama)
    nlp = pipeline(tiny_llama, attr="relx_relations")
    doc = nlp(TEXT)
    expected = rows(doc, "relx_relations")
    assert len(expected) == 5
    assert doc._.relations == "somebody else's"
    assert doc._.relx_relations_triples[0] == ("Steve Jobs", expected[0][6], "Apple")
    assert doc.ents[0]._.relx_relations
    nlp.to_disk(tmp_path / "saved")
    nlp = spacy.load(tmp_path / "saved")
    assert rows(nlp(TEXT), "relx_relations") == expected
    assert rows(Doc(nlp.vocab).from_bytes(doc.to_bytes()), "relx_relations") == expected
    assert nlp.evaluate([Example(nlp.make_doc(TEXT), doc)])["rel_micro_f"] == 1.0
