"""The script that made the shipped adapter: nothing that is held out comes into its rows."""

import json
from pathlib import Path

import pytest
import spacy
import srsly
import typer
from script_loader import load_script
from spacy.tokens import Doc, DocBin, Span

import spacy_relx
from spacy_relx.adapters import packaged_adapter
from spacy_relx.engine.adapter import read_adapter
from spacy_relx.engine.spec import EMBEDDED_ADAPTER
from spacy_relx.relation import register
from spacy_relx.schema import make_schema
from spacy_relx.training.rows import read_rows

script = load_script("train_embedded")

LABELS = {
    "semeval2010_task8.dev": ["Cause-Effect(e1,e2)", "Other", "Entity-Origin(e2,e1)"],
    "redocred.dev": ["country", "creator", "spouse"],
    "fewrel.val_wiki": ["crosses", "mother"],
    "wiki80.dev": ["crosses", *script.HELD_OUT],
    "wiki80.train_0.1": ["spouse", "occupant"],
    "scierc.train": ["USED-FOR", "PART-OF"],
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    register()
    folder = tmp_path_factory.mktemp("corpus")
    vocab = spacy.blank("en").vocab
    for file, labels in LABELS.items():
        docs = []
        for i in range(40):
            label = labels[i % len(labels)]
            doc = Doc(vocab, [f"First{i}", "and", f"Second{i}", "of", file, "or", label.split(" ")[0].title(), "."])
            # Head and tail are the same words in all files, so that a held-out text may come back under another label.
            if file == "fewrel.val_wiki" and i < 4:
                doc = Doc(vocab, ["A", "secret", f"Number{i}", "."])
            if file == "wiki80.dev" and 1 <= i < 5:
                doc = Doc(vocab, ["A", "secret", f"Number{i - 1}", "."])
            doc[0].is_sent_start = True
            head, tail = Span(doc, 0, 1, "ENTITY"), Span(doc, 2, 3, "ENTITY")
            doc.spans["gold"] = [head, tail]
            doc.ents = [head, tail]
            doc._.relations = [(head, label, tail)]
            docs.append(doc)
        DocBin(docs=docs, store_user_data=True).to_disk(folder / f"{file}.spacy")
    return folder


@pytest.mark.parametrize("recipe", script.RECIPES)
def test_rows_of_every_recipe_hold_nothing_held_out(corpus: Path, recipe: str, tmp_path: Path) -> None:
    script.write(recipe, tmp_path, corpus=corpus, dev_rows=10, seed=0)
    groups = list(read_rows(tmp_path / "rows.jsonl"))
    facts = srsly.read_json(tmp_path / "rows.json")
    assert facts["rows"] == sum(map(len, groups)) > 100
    assert set(facts["corpora"]) == set(LABELS)
    wordings = srsly.read_json(Path(spacy_relx.__file__).parent / "training" / "wordings" / "fewrel.json")["labels"]
    assert not set(wordings) & set(script.HELD_OUT)
    for group in groups:
        assert not set(group.labels) & set(script.HELD_OUT)
        text = json.dumps(group.to_dict())
        assert "secret" not in text
        assert not any(f"{name}," in text for name in script.HELD_OUT)
    unseen = list(read_rows(tmp_path / "dev.unseen.jsonl"))
    _, dev = script.unseen_labels()
    assert {answer for group in unseen for _, answer in group.rows} <= set(dev)
    assert all(set(group.labels) == set(dev) for group in unseen)


def test_the_sixteen_and_the_six() -> None:
    test, dev = script.unseen_labels()
    assert (len(test), len(dev)) == (16, 6)
    assert sorted([*test, *dev]) == sorted(script.HELD_OUT)


def test_a_mix_of_earlier_rows_in_small_groups(corpus: Path, tmp_path: Path) -> None:
    script.write("explained", tmp_path / "first", corpus=corpus, dev_rows=10, seed=0)
    script.write("explained", tmp_path / "second", corpus=corpus, dev_rows=10, seed=0, general=True)
    script.mix(tmp_path / "mix", [f"1.0:{tmp_path / 'first'}", f"0.5:{tmp_path / 'second'}"], most=3, seed=0)
    groups, first = list(read_rows(tmp_path / "mix" / "rows.jsonl")), list(read_rows(tmp_path / "first" / "rows.jsonl"))
    assert max(map(len, groups)) <= 3
    asked = [row for group in groups for row in group.rows]
    assert len(asked) > sum(map(len, first))
    assert {row for group in first for row in group.rows} <= set(asked)
    facts = srsly.read_json(tmp_path / "mix" / "rows.json")
    assert facts["rows"] == len(asked)
    assert set(facts["corpora"]) == set(LABELS)


def test_relations_go_by_names_that_their_schemas_have() -> None:
    assert set(script.GENERAL) <= set(make_schema(name="redocred").names)
    assert {name for name, _, _ in script.GENERAL.values()} <= set(make_schema(name="general").names)


def test_rows_of_one_source_alone(corpus: Path, tmp_path: Path) -> None:
    script.write("explained", tmp_path, corpus=corpus, dev_rows=10, seed=0, only=["scierc"])
    assert set(srsly.read_json(tmp_path / "rows.json")["sources"]) == {"scierc"}
    with pytest.raises(typer.BadParameter, match=r"--only sciecr: expected some of semeval2010_task8, redocred"):
        script.write("explained", tmp_path, corpus=corpus, only=["sciecr"])


def test_what_is_shipped_has_the_record_of_its_runs(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "ROOT", tmp_path)
    for name, losses in (("first", [2.0, 1.0]), ("second", [0.5])):
        script.write("explained", tmp_path / name, corpus=corpus, dev_rows=10, seed=3, only=["scierc"])
        lines = [{"loss": loss, "n_rows": 8, "n_tokens": 100, "total_seconds": 90.0} for loss in losses]
        srsly.write_jsonl(tmp_path / name / "log.jsonl", lines)
    srsly.write_json(tmp_path / "second" / "dev.json", {"unseen": {"accuracy": 0.5}})
    source = packaged_adapter(EMBEDDED_ADAPTER)
    script.ship(tmp_path / "second", threshold=0.6, adapter=source, before=[tmp_path / "first"], machine="a laptop")
    shipped = tmp_path / "spacy_relx" / "adapters" / EMBEDDED_ADAPTER
    adapter = read_adapter(shipped)
    assert adapter.metadata["threshold"] == 0.6
    assert adapter.tensors.keys() == read_adapter(source).tensors.keys()
    record = srsly.read_json(shipped / "training.json")
    assert record["development"] == {"unseen": {"accuracy": 0.5}}
    first, second = record["runs"]
    assert (first["steps"], first["rows"], first["tokens"], first["minutes"]) == (2, 16, 200, 1.5)
    assert (first["first_loss"], second["last_loss"], second["seed"]) == (1.5, 0.5, 3)
    assert first["rows_sha256"] == srsly.read_json(tmp_path / "first" / "rows.json")["sha256"]
    assert len(first["commands"]) == 1
