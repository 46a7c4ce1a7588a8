"""The wordings of the training relations: complete, unambiguous, and silent about the relations that are held out."""

import json
import re
from itertools import product
from pathlib import Path

import pytest
from script_loader import load_script

import spacy_relx

PACKAGE = Path(spacy_relx.__file__).parent
WORDINGS = PACKAGE / "training" / "wordings"

HELD_OUT = load_script("train_embedded").HELD_OUT

# Words that would say the same as a held-out relation, wherever they stand in a paraphrase or definition.
TELLTALE = re.compile(
    r"after a work|inspired|adapted|architect|designed by|distribut|field of (work|study)|speciali[sz]|heritage"
    r"|listed as|instrument|language of (the )?work|broadcast|licen[sc]ed|mountain|movement|nominat|occup|tenant"
    r"|profession|\bjob\b|operating system|runs on|\bteams?\b|serves|served by|transport|airport|same as|also known"
    r"|identical|\bseason|elected|candidate|taxonomic|taxon rank|tributar|winner|\bwon\b|\bwin\b|victor|champion"
)

# The one allowed: the name of a Re-DocRED label, which holds between a player and a club.
NAMES_WITH_TELLTALES = {"member of sports team"}

ENTITY_TYPES = {
    "CARDINAL",
    "DATE",
    "EVENT",
    "FAC",
    "GPE",
    "LANGUAGE",
    "LAW",
    "LOC",
    "MONEY",
    "NORP",
    "ORDINAL",
    "ORG",
    "PERCENT",
    "PERSON",
    "PRODUCT",
    "QUANTITY",
    "TIME",
    "WORK_OF_ART",
}

# The packaged schemas whose labels a file words.
SCHEMAS = {
    "fewrel": ("fewrel", "wiki80"),
    "redocred": ("redocred",),
    "scierc": ("scierc",),
    "semeval2010_task8": ("semeval2010_task8",),
}
N_LABELS = {"fewrel": 58, "redocred": 96, "scierc": 7, "semeval2010_task8": 18}


def normal(text):
    """What two wordings that differ in style only have in common."""
    return " ".join(re.sub("[_-]", " ", text).casefold().split())


def unique_keys(pairs):
    keys = [key for key, _ in pairs]
    assert len(set(keys)) == len(keys), f"twice the same key: {sorted(key for key in keys if keys.count(key) > 1)}"
    return dict(pairs)


def read(name):
    return json.loads((WORDINGS / f"{name}.json").read_text(encoding="utf-8"), object_pairs_hook=unique_keys)


def schema_labels(name):
    return json.loads((PACKAGE / "schemas" / f"{name}.json").read_text(encoding="utf-8"))["labels"]


def every(kind):
    """(label, text) of all paraphrases or definitions of a file, for each file."""
    return [
        pytest.param([(label, text) for label, entry in read(name)["labels"].items() for text in entry[kind]], id=name)
        for name in SCHEMAS
    ]


def test_a_file_for_each_set_and_no_other():
    assert sorted(path.name for path in WORDINGS.iterdir()) == [f"{name}.json" for name in sorted(SCHEMAS)]


@pytest.mark.parametrize("name", SCHEMAS)
def test_form(name):
    data = read(name)
    assert set(data) == {"title", "note", "labels"}
    assert data["title"].strip()
    assert data["note"].strip()
    for label, entry in data["labels"].items():
        assert {"paraphrases", "definitions"} <= set(entry) <= {"paraphrases", "definitions", "head", "tail"}, label
        assert 4 <= len(entry["paraphrases"]) <= 8, label
        assert 2 <= len(entry["definitions"]) <= 3, label


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_label_of_the_schema_and_no_other(name):
    known = {label for schema in SCHEMAS[name] for label in schema_labels(schema)}
    labels = read(name)["labels"]
    assert set(labels) == known - set(HELD_OUT)
    assert len(labels) == N_LABELS[name]


def test_what_is_held_out():
    assert len(HELD_OUT) == 22
    trained = set(schema_labels("redocred")) | set(schema_labels("fewrel"))
    assert set(HELD_OUT) == set(schema_labels("wiki80")) - trained


@pytest.mark.parametrize("paraphrases", every("paraphrases"))
def test_a_paraphrase_is_of_one_label_only(paraphrases):
    labels = {label for label, _ in paraphrases}
    said = {normal(label): label for label in labels}
    own = set()
    for label, text in paraphrases:
        assert (label, normal(text)) not in own, f"{text!r} twice at {label!r}"
        own.add((label, normal(text)))
        assert said.setdefault(normal(text), label) == label, f"{text!r} at {label!r} and {said[normal(text)]!r}"


@pytest.mark.parametrize("definitions", every("definitions"))
def test_a_definition_is_of_one_label_only_and_short(definitions):
    said = {}
    for label, text in definitions:
        assert said.setdefault(normal(text), label) == label, f"{text!r} at {label!r} and {said[normal(text)]!r}"
        assert 5 <= len(text.split()) <= 14, text
        assert text[0].islower(), text
        assert text[-1].isalnum(), text
        if "first" in text.split() and "second" in text.split():
            assert text.split().index("first") < text.split().index("second"), text
    assert len(said) == len(definitions)


@pytest.mark.parametrize("texts", [*every("paraphrases"), *every("definitions")])
def test_no_text_is_empty_or_padded(texts):
    for label, text in texts:
        assert isinstance(text, str)
        assert normal(text), f"an empty text at {label!r}"
        assert text == " ".join(text.split()), f"{text!r} at {label!r} has white space to spare"


@pytest.mark.parametrize("texts", [*every("paraphrases"), *every("definitions")])
def test_nothing_of_what_is_held_out(texts):
    held_out = {normal(name) for name in HELD_OUT}
    for label, text in texts:
        assert normal(label) not in held_out
        assert normal(text) not in held_out, f"{text!r} at {label!r}"
        found = TELLTALE.search(normal(text))
        assert not found or normal(text) in NAMES_WITH_TELLTALES, f"{text!r} at {label!r} has {found[0]!r}"


def test_the_telltales_find_the_held_out_names():
    missed = [name for name in HELD_OUT if not TELLTALE.search(normal(name))]
    assert not missed


@pytest.mark.parametrize(("name", "side"), product(SCHEMAS, ("head", "tail")))
def test_types_are_known(name, side):
    for label, entry in read(name)["labels"].items():
        if side in entry:
            assert entry[side], label
            assert set(entry[side]) <= ENTITY_TYPES, label
            assert len(set(entry[side])) == len(entry[side]), label


@pytest.mark.parametrize(
    ("name", "label", "head", "tail"),
    [
        ("redocred", "head of government", "GPE", "PERSON"),
        ("redocred", "capital", "GPE", "GPE"),
        ("redocred", "founded by", "ORG", "PERSON"),
        ("redocred", "present in work", "PERSON", "WORK_OF_ART"),
        ("redocred", "characters", "WORK_OF_ART", "PERSON"),
        ("redocred", "participant", "EVENT", "PERSON"),
        ("redocred", "participant of", "PERSON", "EVENT"),
        ("redocred", "date of birth", "PERSON", "DATE"),
        ("fewrel", "crosses", "FAC", "LOC"),
        ("fewrel", "director", "WORK_OF_ART", "PERSON"),
        ("fewrel", "notable work", "PERSON", "WORK_OF_ART"),
    ],
)
def test_types_of_the_right_side(name, label, head, tail):
    entry = read(name)["labels"][label]
    assert head in entry["head"]
    assert tail in entry["tail"]


@pytest.mark.parametrize(
    ("name", "label", "one", "other", "converse"),
    [
        ("semeval2010_task8", "Cause-Effect(e1,e2)", "causes", "Cause-Effect(e2,e1)", "caused_by"),
        ("semeval2010_task8", "Product-Producer(e1,e2)", "produced_by", "Product-Producer(e2,e1)", "produces"),
        ("semeval2010_task8", "Content-Container(e1,e2)", "contained_in", "Content-Container(e2,e1)", "contains"),
        ("redocred", "follows", "comes_after", "followed by", "comes_before"),
        ("redocred", "subsidiary", "has_subsidiary", "parent organization", "subsidiary_of"),
        ("redocred", "child", "parent_of", "father", "has_father"),
        ("redocred", "capital", "has_capital", "capital of", "capital_of"),
        ("redocred", "manufacturer", "made by", "product or material produced", "produces"),
    ],
)
def test_converse_relations_are_worded_conversely(name, label, one, other, converse):
    labels = read(name)["labels"]
    assert one in labels[label]["paraphrases"]
    assert converse in labels[other]["paraphrases"]
