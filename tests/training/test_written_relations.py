"""Relations that were written for training: nothing held out, right answers in their lists."""

from __future__ import annotations

import json
import sys
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from spacy_relx.training.rows import read_rows
from tests.script_loader import FOLDER, load_script

if TYPE_CHECKING:
    from pathlib import Path

sys.path.insert(0, str(FOLDER))  # as where the script runs
script = load_script("written_relations")
sys.path.remove(str(FOLDER))


def relation(name: str, *sentences: str, names: tuple[str, ...] = ("other name",)) -> dict[str, Any]:
    return {"name": name, "names": names, "definition": f"what {name} means", "sentences": sentences}


def write(folder: Path, *relations: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "some.jsonl").write_text("\n".join(map(json.dumps, relations)), encoding="utf-8")
    return folder


def test_a_marked_sentence_is_read() -> None:
    sentence = script._read_sentence("[x:Ann] ate [t:bread] in [h:Rome], [x:Bob] did not.")
    assert sentence == script.Sentence("Ann ate bread in Rome, Bob did not.", "Rome", "bread", ("Ann", "Bob"))
    assert sentence.question("Ann", "Rome") == (
        "Sentence: Ann ate bread in Rome, Bob did not.\nEntity 1: Ann\nEntity 2: Rome\nRelation:"
    )


def test_the_files_of_the_repository_have_no_faults() -> None:
    relations = script.read_relations()
    assert relations
    assert list(script._faults(relations)) == []


@pytest.mark.parametrize("name", script.HELD_OUT)
def test_held_out_names_are_refused(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "new", relation("food", "[h:Ann] ate [t:bread].", names=(name.replace(" ", "_"),)))
    outcome = CliRunner().invoke(script.app, ["check", str(folder)])
    assert outcome.exit_code == 1
    assert "says what a held-out name says" in outcome.output


def test_a_name_of_two_relations_and_a_pair_of_one_text_are_faults(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "new",
        relation("food", "[h:Ann] ate [t:bread]."),
        relation("drink", "[h:Ann] gave [t:Ann] tea.", names=("Food",)),
    )
    faults = list(script._faults(script.read_relations(folder)))
    assert len(faults) == 2
    assert "is a name of both 'food' and 'drink'" in faults[0]
    assert "holds between two entities of one text" in faults[1]


def test_every_answer_is_right_and_listed() -> None:
    relations = script.read_relations()
    answers = {
        sentence.question(sentence.head, sentence.tail): {
            name.casefold().replace("_", " ") for name in (relation.name, *relation.names)
        }
        for relation in relations
        for sentence in relation.sentences
    }
    lists = script._Lists(relations, Random(1))
    n_none = 0
    for _ in range(150):
        group = lists.draw()
        assert len({label.casefold() for label in group.labels}) == len(group.labels)
        assert all(label in group.turns[0][1] for label in group.labels)
        for question, answer in group.rows:
            assert answer in group.labels
            own = answers.get(question, set())
            if answer == script.NONE:
                n_none += 1
                assert not own & {label.casefold().replace("_", " ") for label in group.labels}
            else:
                assert answer.casefold().replace("_", " ") in own
    assert n_none


def test_rows_of_one_seed_are_the_same(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert not CliRunner().invoke(script.app, ["rows", str(tmp_path / name), "--n-rows", "60"]).exit_code
    first, second = (list(read_rows(tmp_path / name / "rows.jsonl")) for name in ("a", "b"))
    assert first == second
    assert 60 <= sum(map(len, first)) < 80
    facts = json.loads((tmp_path / "a" / "rows.json").read_text(encoding="utf-8"))
    assert set(facts["corpora"]) == {relation.file for relation in script.read_relations()}
