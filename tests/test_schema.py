import ast
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spacy_relx
from spacy_relx.errors import ConfigError, SchemaError
from spacy_relx.schema import (
    About,
    Label,
    Schema,
    bundled_schemas,
    load_schema,
    make_schema,
    parse_labels,
)

TYPES = ("PERSON", "ORG", "GPE", "DATE")

# The published number of positive labels; REBEL's and FewRel's files say what they hold instead.
N_LABELS = {
    "conll04": 5,
    "fewrel": 16,
    "general": 30,
    "gids": 4,
    "kbp37": 36,
    "nyt11": 24,
    "rebel": 230,
    "redocred": 96,
    "retacred": 39,
    "scierc": 7,
    "semeval2010_task8": 18,
    "tacred": 41,
    "wiki80": 80,
}


# What a user writes


def test_example_of_the_readme():
    schema = parse_labels(
        {
            "founded_by": {"description": "the organisation was founded by the person", "head": ["ORG"]},
            "headquartered_in": {"head": ["ORG"], "tail": ["GPE", "LOC"]},
            "works_for": {"head": ["PERSON"], "tail": ["ORG"], "threshold": 0.7},
        }
    )
    assert schema.names == ("founded_by", "headquartered_in", "works_for")
    assert len(schema) == 3
    assert [label.name for label in schema] == list(schema.names)
    assert "works_for" in schema
    assert "worksfor" not in schema
    assert schema["works_for"].threshold == 0.7
    assert schema["founded_by"].prompt == "founded_by"
    assert schema.position("works_for") == 2
    assert schema.no_relation is None
    assert schema.allowed("ORG", "GPE") == (0, 1)
    assert schema.allowed("PERSON", "ORG") == (2,)
    assert schema.allowed("DATE", "DATE") == ()


def test_list_of_names_keeps_its_order():
    assert parse_labels(["b", "a"]).names == ("b", "a")
    assert parse_labels(("b", "a")) == parse_labels(["b", "a"])


def test_entries_may_be_null_or_empty_and_their_settings_may_be_null():
    settings = dict.fromkeys(("description", "head", "tail", "inverse", "threshold", "prompt", "id"))
    schema = parse_labels({"a": {}, "b": settings, "c": None})
    assert schema.labels == (Label("a", "a"), Label("b", "b"), Label("c", "c"))


def test_null_is_the_general_schema():
    assert parse_labels(None).name == "general"


def test_nothing_is_an_empty_schema():
    assert len(parse_labels([])) == len(parse_labels({})) == 0
    assert parse_labels([]).allowed("ORG", "ORG") == ()


def test_schema_object_is_taken_as_it_is():
    schema = make_schema("gids")
    assert parse_labels(schema) is schema
    assert "/people/person/education./education/education/degree" in schema


def test_repeated_type_is_taken_once():
    assert parse_labels({"a": {"head": ["ORG", "ORG"]}})["a"].head == ("ORG",)


def test_a_whole_number_is_a_threshold():
    assert parse_labels({"a": {"threshold": 1}})["a"].threshold == 1.0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("tacred", r'write \["tacred"\]; for a packaged schema write \{"@misc": "spacy-relx.Schema.v1", "name": "tac'),
        (7, r"labels is 7 \(int\). Expected null, a list of names, a mapping"),
        ([3], r"labels\[0\] is 3 \(int\). Expected a string"),
        ([{"name": "a"}], r"labels\[0\] is .* For settings, write a mapping"),
        ({1: {}}, r"The name of a label is 1 \(int\)"),
        ([""], r"labels\[0\] is ''. Expected visible text"),
        ({"": {}}, r"The name of a label is ''"),
        (["a", " b"], r"labels\[1\] is ' b'. Expected no outer white space; write 'b'"),
        (["a\nb"], r"labels\[0\] is 'a\\nb'. Expected one line"),
        (["a", "a"], r"labels\[1\] is 'a', which the list holds already"),
        ({"a": "a text"}, r'labels.a is \'a text\'. Expected settings; write \{"description": "a text"\}'),
        ({"a": ["ORG"]}, r"labels.a is \['ORG'\] \(list\). Expected a mapping of settings, or null"),
        (
            {"a": {"hed": ["ORG"]}},
            r"labels.a has an unknown key 'hed'. Did you mean 'head'\? Known keys: description, h",
        ),
        ({"a": {"xyzzy": 1}}, r"labels.a has an unknown key 'xyzzy'. Known keys"),
        ({"a": {"head": "ORG"}}, r'labels.a.head is \'ORG\' \(str\). Expected a list .* Write \["ORG"\]'),
        ({"a": {"tail": ["ORG", 3]}}, r"labels.a.tail\[1\] is 3 \(int\). Expected a string"),
        ({"a": {"tail": ["ORG", ""]}}, r"labels.a.tail\[1\] is ''"),
        ({"a": {"threshold": "0.7"}}, r"labels.a.threshold is '0.7' \(str\). .* Write 0.7 without quotes"),
        ({"a": {"threshold": True}}, r"labels.a.threshold is True \(bool\). Expected a number from 0 to 1"),
        ({"a": {"threshold": 1.1}}, r"labels.a.threshold is 1.1. Expected a number from 0 to 1"),
        ({"a": {"threshold": -0.1}}, r"labels.a.threshold is -0.1"),
        ({"a": {"threshold": float("nan")}}, r"labels.a.threshold is nan"),
        ({"a": {"symmetric": "yes"}}, r"labels.a.symmetric is 'yes' \(str\). Expected true or false"),
        ({"a": {"symmetric": 1}}, r"labels.a.symmetric is 1 \(int\)"),
        ({"a": {"description": 3}}, r"labels.a.description is 3 \(int\). Expected a string"),
        ({"a": {"prompt": ""}}, r"labels.a.prompt is ''. Expected visible text"),
        ({"a": {"prompt": "x "}}, r"labels.a.prompt is 'x '. Expected no outer white space"),
        ({"a": {"prompt": "x\ny"}}, r"labels.a.prompt is .* Expected one line"),
        ({"a": {"prompt": "b"}, "b": {}}, r"labels.b.prompt is 'b', which is also the text of 'a'"),
        ({"a": {"inverse": "a"}}, r"labels.a.inverse is the label itself. .* set symmetric to true"),
        ({"a": {"inverse": "b", "symmetric": True}}, r"labels.a is symmetric and names the inverse 'b'"),
        (
            {"a": {"inverse": "c"}, "b": {"inverse": "c"}},
            r"labels.b.inverse is 'c', which is already the mirror of 'a'",
        ),
        ({"a": {"inverse": "b"}, "b": {"symmetric": True}}, r"labels.a.inverse is 'b', which is symmetric"),
        ({"a": {"inverse": "b"}, "b": {"inverse": "c"}}, r"but labels.b.inverse is 'c'. Expected 'a', or nothing"),
        (
            {"a": {"inverse": "b", "head": ["ORG"]}, "b": {"tail": ["PERSON"]}},
            r"labels.a.head is \['ORG'\] and labels.b.tail is \['PERSON'\]. Expected the same types",
        ),
        ({"a": {"inverse": "no_relation"}, "no_relation": {}}, r"labels.a.inverse is 'no_relation', the negative"),
    ],
)
def test_refused_labels(labels, message):
    with pytest.raises(SchemaError, match=message):
        parse_labels(labels)


# The negative label


@pytest.mark.parametrize("labels", [["a", "no_relation"], {"no_relation": {}, "a": {}}, {"a": {}, "no_relation": None}])
def test_negative_in_the_labels_is_not_a_label(labels):
    schema = parse_labels(labels)
    assert schema.names == ("a",)
    assert schema.no_relation == "no_relation"
    assert schema.negative == Label("no_relation", "no_relation")


def test_negative_may_have_a_prompt_and_a_description():
    entry = {"prompt": "none", "description": "nothing is said"}
    assert parse_labels({"a": {}, "NA": entry}, no_relation="NA").negative == Label("NA", "none", "nothing is said")


@pytest.mark.parametrize("entry", [{"head": ["ORG"]}, {"threshold": 0.5}, {"symmetric": True}, {"inverse": "b"}])
def test_negative_may_not_be_restricted(entry):
    with pytest.raises(SchemaError, match=rf"labels.no_relation is the negative label and sets {next(iter(entry))}"):
        parse_labels({"a": {}, "no_relation": entry})


def test_without_a_negative_the_name_is_a_label():
    assert parse_labels(["a", "no_relation"], no_relation=None).names == ("a", "no_relation")


@pytest.mark.parametrize(
    "labels", [{"a": {"prompt": "no_relation"}}, {"a": {"prompt": "none"}, "no_relation": {"prompt": "none"}}]
)
def test_a_label_may_not_look_like_the_negative(labels):
    with pytest.raises(SchemaError, match=r"labels.\w+.prompt is '\w+', which is also the text of"):
        parse_labels(labels)


@pytest.mark.parametrize("name", ["", " x", "a\nb", 3, "$x"])
def test_refused_name_of_the_negative(name):
    with pytest.raises(ConfigError, match="no_relation"):
        parse_labels(["a"], no_relation=name)


def test_negative_that_a_schema_object_holds_as_a_label():
    schema = parse_labels(Schema((Label("a", "a"), Label("NA", "NA"))), no_relation="NA")
    assert schema.names == ("a",)
    assert schema.no_relation == "NA"


def test_a_schema_cannot_hold_its_negative_as_a_label():
    with pytest.raises(SchemaError, match="'NA' is the negative label and a label"):
        Schema((Label("NA", "other"),), no_relation="NA")
    with pytest.raises(SchemaError, match="Two labels are called 'a'"):
        Schema((Label("a", "x"), Label("a", "y")))


# Types and mirrors


label_names = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=6)
types = st.lists(st.sampled_from(TYPES), unique=True, max_size=3)


@st.composite
def schemas(draw):
    """Consistent schemas: an inverse names a label that is no mirror yet, or a name outside the schema."""
    names = draw(label_names)
    labels, free = {}, list(names)
    for name in names:
        entry = {"head": draw(types), "tail": draw(types), "description": draw(st.sampled_from(["", "x. $5"]))}
        entry["threshold"] = draw(st.none() | st.floats(0, 1))
        entry["prompt"] = f"prompt of {name}" if draw(st.booleans()) else None
        entry["id"] = draw(st.none() | st.just("P1"))
        labels[name] = entry
    for name in names:
        if name not in free:
            continue
        free.remove(name)
        kind = draw(st.sampled_from(["plain", "symmetric", "outside", "mirror", "both"]))
        if kind == "symmetric":
            labels[name]["symmetric"] = True
        elif kind == "outside":
            labels[name]["inverse"] = f"{name}_inverted"
        elif kind in ("mirror", "both") and free:
            other = free.pop()
            labels[name]["inverse"] = other
            labels[other] |= {"head": labels[name]["tail"], "tail": labels[name]["head"]}
            if kind == "both":
                labels[other]["inverse"] = name
    about = draw(st.just({}) | st.just({"title": "T", "complete": False, "n_published": 9, "note": "n"}))
    data = {"labels": labels, "name": draw(st.sampled_from(["x", "y"])), **about}
    data["no_relation"] = draw(st.sampled_from([None, "NA"]))
    if data["no_relation"] and draw(st.booleans()):
        labels["NA"] = {"prompt": "none"}
    return Schema.from_dict(data)


@settings(deadline=None)
@given(schemas())
def test_plain_data_gives_the_schema_back(schema):
    data = schema.to_dict()
    assert Schema.from_dict(data) == schema
    assert Schema.from_dict(json.loads(json.dumps(data))) == schema
    assert pickle.loads(pickle.dumps(schema)) == schema
    assert hash(pickle.loads(pickle.dumps(schema))) == hash(schema)


@settings(deadline=None)
@given(schemas(), st.sampled_from((*TYPES, "LAW")), st.sampled_from(TYPES))
def test_allowed_is_every_label_that_allows(schema, head, tail):
    def fits(label, first, second):
        return (first in label.head or label.head == ()) and (second in label.tail or label.tail == ())

    expected = []
    for i, label in enumerate(schema.labels):
        if fits(label, head, tail) or (label.symmetric and fits(label, tail, head)):
            expected.append(i)
    assert schema.allowed(head, tail) == tuple(expected)
    assert schema.allowed(head, tail) is schema.allowed(head, tail)


@settings(deadline=None)
@given(schemas())
def test_canonical_is_idempotent_and_undoes_each_inverse(schema):
    for label in schema:
        once = schema.canonical(label.name, 1, 2)
        assert schema.canonical(*once) == once
        if label.inverse is not None:
            assert schema.canonical(label.inverse, 2, 1) == once
        if label.symmetric:
            assert once == (label.name, 1, 2)
    assert schema.canonical("unheard of", 1, 2) == ("unheard of", 1, 2)


def test_hand_worked_mirrors():
    one_sided = parse_labels({"child_of": {}, "parent_of": {"inverse": "child_of"}})
    assert one_sided.canonical("child_of", "Ann", "Eve") == ("parent_of", "Eve", "Ann")
    assert one_sided.canonical("parent_of", "Eve", "Ann") == ("parent_of", "Eve", "Ann")
    both = parse_labels({"child_of": {"inverse": "parent_of"}, "parent_of": {"inverse": "child_of"}})
    assert both.canonical("child_of", "Ann", "Eve") == ("child_of", "Ann", "Eve")
    assert both.canonical("parent_of", "Eve", "Ann") == ("child_of", "Ann", "Eve")
    outside = parse_labels({"child_of": {"inverse": "parent_of"}})
    assert outside.canonical("parent_of", "Eve", "Ann") == ("child_of", "Ann", "Eve")


def test_an_inverse_may_leave_the_types_of_one_side_open():
    parse_labels({"a": {"head": ["ORG"], "tail": ["PERSON"], "inverse": "b"}, "b": {}})
    parse_labels({"a": {"head": ["ORG", "GPE"], "inverse": "b"}, "b": {"tail": ["GPE", "ORG"]}})


def test_symmetric_label_ignores_the_order_of_types():
    schema = parse_labels({"allied": {"head": ["ORG"], "tail": ["GPE"], "symmetric": True}})
    assert schema.allowed("GPE", "ORG") == schema.allowed("ORG", "GPE") == (0,)
    assert schema.allowed("GPE", "GPE") == ()


def test_unknown_label_names_a_close_one():
    with pytest.raises(
        SchemaError, match=r"'founded' is not a label of .* Did you mean 'founded_by'\? Its 2 labels: fou"
    ):
        parse_labels(["founded_by", "spouse"])["founded"]
    with pytest.raises(SchemaError, match=r"Its 96 labels: head of government, .*, …\."):
        make_schema("redocred").position("nothing like it")


# Files


def test_file_round_trip(tmp_path):
    path = tmp_path / "labels.json"
    for name in bundled_schemas():
        path.write_text(json.dumps(make_schema(name).to_dict()), encoding="utf8")
        assert load_schema(path) == make_schema(path=str(path)) == make_schema(name)


def test_file_holds_what_a_config_cannot(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text('{"labels": {"a.b": {"description": "${x} costs $5"}, "c:d": null}}', encoding="utf8")
    schema = parse_labels(load_schema(path))
    assert schema.names == ("a.b", "c:d")
    assert schema["a.b"].description == "${x} costs $5"
    assert schema.about == About()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON: .*line 1"),
        ("[]", "holds a list. Expected an object"),
        ("{}", "schema has no key 'labels'. Expected a list of label names, or"),
        ('{"labels": {"a": {}, "a": {}}}', "The key 'a' appears twice"),
        ('{"labels": 3}', r"schema.labels is 3 \(int\). Expected a list"),
        ('{"labels": [], "license": "MIT"}', r"schema has an unknown key 'license'. Did you mean 'licence'\?"),
        ('{"labels": [], "n_published": "3"}', r"schema.n_published is '3' \(str\). Expected a whole number"),
        ('{"labels": {"a": {"threshold": 2}}}', "labels.a.threshold is 2"),
        ('{"labels": {"a": {"threshold": NaN}}}', "labels.a.threshold is nan"),
        ('{"labels": ["a"], "no_relation": " "}', "The name of a label is ' '"),
    ],
)
def test_refused_files(tmp_path, text, message):
    path = tmp_path / "labels.json"
    path.write_text(text, encoding="utf8")
    with pytest.raises(SchemaError, match=rf"labels.json' .*{message}"):
        load_schema(path)


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(SchemaError, match=r"nowhere.json' cannot be read: No such file.*check the path"):
        load_schema(tmp_path / "nowhere.json")
    with pytest.raises(SchemaError, match="cannot be read"):
        load_schema(tmp_path)
    (tmp_path / "latin.json").write_bytes(b'{"labels": ["\xe9"]}')
    with pytest.raises(SchemaError, match=r"latin.json' is not UTF-8"):
        load_schema(tmp_path / "latin.json")


def test_name_or_path():
    assert make_schema().name == "general"
    with pytest.raises(
        SchemaError, match=r"There is no packaged schema 'tacrd'. Did you mean 'tacred'\? Packaged: conll04, "
    ):
        make_schema("tacrd")
    with pytest.raises(SchemaError, match=r"name='tacred' and path='x.json'. Expected one of the two"):
        make_schema("tacred", "x.json")


def test_block_resolves_through_the_registry(tmp_path):
    from thinc.api import Config, registry

    path = tmp_path / "labels.json"
    path.write_text('{"labels": ["a"]}', encoding="utf8")
    registry.create("relx_test_schemas", entry_points=False)
    registry.relx_test_schemas("Schema.v1", func=make_schema)
    for arguments, name in (({}, "general"), ({"name": "gids"}, "gids"), ({"path": str(path)}, "custom")):
        block = {"labels": {"@relx_test_schemas": "Schema.v1", **arguments}}
        assert registry.resolve(Config(block))["labels"].name == name


# The packaged schemas


def test_packaged_schemas_are_the_expected_ones():
    assert {name: len(make_schema(name)) for name in bundled_schemas()} == N_LABELS


@pytest.mark.parametrize("name", sorted(N_LABELS))
def test_packaged_schema(name):
    schema = make_schema(name)
    assert schema.name == name
    assert schema.about.title
    assert schema.about.source
    assert schema.about.licence
    assert schema.about.complete == (len(schema) == schema.about.n_published)
    assert make_schema(name) is schema
    assert parse_labels(schema, no_relation=schema.no_relation) is schema


def test_negatives_of_the_packaged_schemas():
    assert {n: make_schema(n).no_relation for n in bundled_schemas() if make_schema(n).no_relation} == {
        "gids": "NA",
        "kbp37": "no_relation",
        "retacred": "no_relation",
        "semeval2010_task8": "Other",
        "tacred": "no_relation",
    }


def test_published_prompts_are_the_data_sets_own_names():
    for name in bundled_schemas():
        assert all(label.prompt == label.name for label in make_schema(name))


def test_conll04_types():
    schema = make_schema("conll04")
    assert [schema.names[i] for i in schema.allowed("Peop", "Loc")] == ["Live_In"]
    assert schema.allowed("Other", "Loc") == ()


def test_general_schema_offers_a_small_choice_for_each_pair():
    schema = make_schema("general")
    entity_types = {t for label in schema for t in label.head + label.tail}
    assert entity_types <= {
        *("PERSON", "NORP", "FAC", "ORG", "GPE", "LOC", "PRODUCT", "EVENT", "WORK_OF_ART", "LAW", "LANGUAGE", "DATE"),
    }
    choices = {(h, t): len(schema.allowed(h, t)) for h in entity_types for t in entity_types}
    assert max(choices.values()) <= 5
    assert all(label.description and label.head and label.tail for label in schema)
    assert all(len({label.name, label.inverse}) == 2 for label in schema)


def test_modules_import_neither_torch_nor_spacy():
    for module in ("schema", "label", "label_set", "schema_config", "config_strings"):
        tree = ast.parse((Path(spacy_relx.__path__[0]) / f"{module}.py").read_text(encoding="utf8"))
        names = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        names |= {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
        assert not {name.split(".")[0] for name in names} & {"torch", "spacy", "thinc", "transformers"}
