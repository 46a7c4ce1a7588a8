"""The script that made the shipped adapter: nothing that is held out comes into its rows."""

import json
from pathlib import Path

import pytest
import spacy
import srsly
from script_loader import load_script
from spacy.tokens import Doc, DocBin, Span

import spacy_relx
from spacy_relx.relation import register
from spacy_relx.schema import make_schema
from spacy_relx.training.rows import read_rows

script = load_script("train_embedded")

LABELS = {
    "semeval2010_task8.dev": ["Cause-Effect(e1,e2)", "Other", "Entity-Origin(e2,e1)"],
    "redocred.dev": ["country", "creator", "spouse"],
    "fewrel.dev": ["crosses", "mother"],
    "wiki80.dev": ["crosses", *script.HELD_OUT],
    "wiki80.train": ["spouse", "occupant"],
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
            if file == "fewrel.dev" and i < 4:
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
