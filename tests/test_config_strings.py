import contextlib
import io
import json

import pytest
import spacy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from spacy.language import Language
from thinc.api import Config

from spacy_relx.errors import ConfigError, SchemaError
from spacy_relx.schema import check_config_strings, make_schema, parse_labels

GIDS_DEGREE = "/people/person/education./education/education/degree"


def save_and_load(value, key="labels"):
    """Do to a setting what nlp.to_disk and spacy.load do, with the line ends of a text file."""
    config = Config({"nlp": {"lang": "en"}, "components": {"relx": {"factory": "x", key: value}}})
    written = config.to_str().encode("utf8")
    text = io.TextIOWrapper(io.BytesIO(written), encoding="utf8").read()
    return Config().from_str(text, interpolate=False).interpolate()["components"]["relx"][key]


def survives(value):
    try:
        once = save_and_load(value)
        return same(once, value) and same(save_and_load(once), value)
    except Exception:
        return False


def same(left, right):
    """Compare with types (1 is not True); the order of keys is not the strings' concern."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


def accepts(value):
    try:
        check_config_strings(value, "labels")
    except SchemaError:
        return False
    return True


nasty = st.text("ab.$@*=:#;[]{}()%\"'\\/ \n\r\t\x0b\x0c\x1c\x85\xa0\u2028é日_,-!", max_size=6)
strings = (
    nasty
    | st.text(max_size=4)
    | st.sampled_from(["__SECTION__:nlp", "null", "1", "1e5", "True", "${nlp}", "$$", "'a'"])
)
leaves = strings | st.none() | st.booleans() | st.integers(-9, 9) | st.floats(0, 1)
json_values = st.recursive(
    leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(strings, v, max_size=3), max_leaves=6
)


@settings(deadline=None)
@given(json_values)
@example({"[a": ["x]"]})
@example({"a": {"b": {}}, "c": None})
@example([{"a.b": ["c.d"]}])
def test_whatever_is_accepted_survives(value):
    if accepts(value):
        assert survives(value)


@settings(deadline=None)
@given(strings)
def test_a_value_is_refused_only_if_it_breaks(text):
    assert accepts(text) == survives(text)
    assert accepts([text, "z"]) == survives([text, "z"])
    assert accepts({"k": {"description": text}}) == survives({"k": {"description": text}})


@settings(deadline=None)
@given(strings)
def test_a_key_is_refused_only_if_it_breaks(key):
    if key.startswith("@") or key == "*":  # these have a meaning for the registry, which Config alone does not show
        assert not accepts({key: {"head": ["ORG"]}})
        return
    assert accepts({key: {"head": ["ORG"]}}) == survives({key: {"head": ["ORG"]}})
    if "." not in key and not key.startswith("["):
        assert accepts({key: None}) == survives({key: None})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({GIDS_DEGREE: {}}, r"The key '/people/.*' in labels cannot be kept .* '\.', which separates sections"),
        (
            {"a": {"description": "up to $5"}},
            r"labels.a.description is 'up to \$5'. It cannot be kept .* doubled at every",
        ),
        (["${a}"], r"labels\[0\] is '\$\{a\}'"),
        ({"a": {"head": ["US$"]}}, r"labels.a.head\[0\] is 'US\$'"),
        ({"per:title": None}, r"The key 'per:title' in labels .* \{\} instead of null"),
        ({"#a": None}, r"starts with '#', which starts a comment"),
        ({"@a": {}}, r"starts with '@', which names a registered function"),
        ({"*": {}}, r"is '\*', which stands for positional"),
        (["__SECTION__:nlp"], r"stands for a section of the config"),
    ],
)
def test_refusal_names_the_place_and_the_way_out(labels, message):
    with pytest.raises(SchemaError, match=rf"{message}.* \{{\"@misc\": \"spacy-relx.Schema.v1\", \"path\""):
        parse_labels(labels)


@pytest.mark.parametrize(
    ("where", "way_out"),
    [
        ("prompt.examples", "examples in a JSON file"),
        ("prompt.system", "system text in a file"),
        ("attr", "other char"),
    ],
)
def test_refusal_elsewhere_names_another_way_out(where, way_out):
    with pytest.raises(ConfigError, match=rf"{where} is '\$'.*{way_out}") as caught:
        check_config_strings("$", where)
    assert not isinstance(caught.value, SchemaError)
    with pytest.raises(ConfigError, match=rf"{where}\[0\].text is '\$'.*use another"):
        check_config_strings([{"text": "$"}], where, way_out="use another")


def test_half_a_surrogate_pair_and_keys_that_are_not_strings():
    for value in ("\ud800", ["\udfff"], {"\ud800": {}}, {3: {}}, [{3: 4}]):
        assert not accepts(value)


@settings(deadline=None)
@given(st.sampled_from(["gids", "tacred", "nyt11", "semeval2010_task8", "redocred", "general", "kbp37"]))
def test_label_names_of_the_benchmarks_survive_as_a_list(name):
    names = list(make_schema(name).names)
    assert parse_labels(names).names == tuple(save_and_load(names)) == tuple(names)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abcdef"), st.none() | st.just({}) | st.just({"head": ["ORG"]}), max_size=6))
def test_order_of_labels_is_the_same_after_loading(labels):
    assert parse_labels(save_and_load(labels)) == parse_labels(labels)


def test_null_entries_come_last():
    labels = {"c": None, "b": {"head": ["ORG"]}, "a": {}}
    assert list(save_and_load(labels)) == ["b", "a", "c"]
    assert parse_labels(labels).names == ("b", "a", "c")


# The same through spaCy itself

SEEN = []


@Language.factory("relx_test_config_strings", default_config={"labels": None})
def make_component(nlp, name, labels):
    SEEN.append(labels)
    return lambda doc: doc


def through_spacy(labels, folder):
    nlp = spacy.blank("en")
    nlp.add_pipe("relx_test_config_strings", name="relx", config={"labels": labels})
    for i in range(2):
        nlp.to_disk(folder / str(i))
        nlp = spacy.load(folder / str(i))
    return SEEN[-1]


@pytest.mark.parametrize(
    "labels",
    [
        [GIDS_DEGREE, "/people/person/place_of_birth"],
        {"per:title": {}, "Cause-Effect(e1,e2)": {"description": "50% of a=b; # not a comment. é 日本"}},
        {"a b": {"prompt": '"quoted"', "head": ["ORG"], "threshold": 0.7, "symmetric": True}, "[x]": {}, "$": {}},
    ],
)
def test_accepted_labels_survive_spacy(labels, tmp_path):
    check_config_strings(labels, "labels")
    assert through_spacy(labels, tmp_path) == labels


@pytest.mark.parametrize(
    "labels",
    [
        {GIDS_DEGREE: {}},
        {"a": {"description": "up to $5"}},
        ["${a}"],
        {"per:title": None},
        {"@a": {}},
        {"*": {}},
        {"a\nb": {}},
        {"a\rb": {}},
        {" a": None},
        ["__SECTION__:nlp"],
    ],
)
def test_refused_labels_do_not_survive_spacy(labels, tmp_path):
    assert not accepts(labels)
    with contextlib.suppress(ValueError, KeyError, AttributeError):
        assert through_spacy(labels, tmp_path) != labels
