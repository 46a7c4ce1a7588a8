"""Wordings: the published prompts to the letter, and what a wording refuses."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from spacy_relx.errors import ConfigError, PromptError
from spacy_relx.prompt_block import make_gentune_prompt
from spacy_relx.prompts import Example, GenTunePrompt, clean
from spacy_relx.schema import Schema, parse_labels

GOLDEN = Path(__file__).parent / "golden"
SMOLLM2 = pytest.param("smollm2", marks=pytest.mark.model)
TOKENIZERS = (SMOLLM2, "llama32")

# Wordings that were published, copied from the card and from the authors' code and not from the package's files.
GENERIC = (
    "You are a relation extraction system. Be concise and direct. Output ONLY the relation type that holds between the "
    "two mentioned entities. Do not output any explanation, punctuation, or extra text — only the label."
)
EVALUATION = GENERIC.replace("extra text — only", "extra. text—only")
TRAINING = "You are an expert relation extraction system. Answer with only the relation label."
SCHEMA = (
    "You are a relation extraction system. Be concise and direct. Output ONLY ONE relation type that holds between the "
    "two mentioned entities. You MUST choose exactly one label from this allowed set: {} Do not output any "
    "explanation, punctuation, or extra. text—only the label."
)
SENTENCE = "Steve Jobs co-founded Apple in Cupertino."
LABELS = {
    "works_for": {"description": "the person is employed by the organisation"},
    "founded_by": {"description": "the organisation was founded by the person"},
    "member_of": {"prompt": "member of"},
}
SHOTS = [
    {"text": "Ada Lovelace joined Acme.", "head": "Ada Lovelace", "tail": "Acme", "label": "works_for"},
    {"text": "Acme is near Paris.", "head": "Acme", "tail": "Paris", "label": "no_relation"},
]
SYSTEMS: dict[str, dict[str, Any]] = {
    "generic": {"system": "generic"},
    "evaluation": {"system": "evaluation"},
    "training": {"system": "training"},
    "schema": {"system": "schema"},
    "schema-names": {"system": "schema", "descriptions": False},
    "none": {"system": ""},
}


@pytest.fixture(scope="session")
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_tokenizer")


@pytest.fixture(scope="module")
def schema() -> Schema:
    return parse_labels(LABELS)


def own_ids(wording: GenTunePrompt, tokenizer: Any, schema: Schema, query: str) -> tuple[str, tuple[int, ...]]:
    """Text and ids by transformers' own hand."""
    turns = [*wording.messages(schema, "no_relation"), {"role": "user", "content": query}]
    shared = {"add_generation_prompt": True, "date_string": "26 Jul 2024"}
    ids = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False, **shared)
    return tokenizer.apply_chat_template(turns, tokenize=False, **shared), tuple(ids)


# Golden files


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("tokenizer", TOKENIZERS, indirect=True)
def test_published_variants_are_rendered_as_recorded(
    request: pytest.FixtureRequest, tokenizer: Any, system: str, schema: Schema, update_golden: bool
) -> None:
    sections = []
    for cue, shots in product(("Relation:", "Answer:"), ([], SHOTS)):
        wording = make_gentune_prompt(cue=cue, examples=shots, **SYSTEMS[system])
        prompt = wording.bind(tokenizer, schema, "no_relation").prompt(SENTENCE, "Apple", "Steve Jobs")
        query = f"Sentence: {SENTENCE}\nEntity 1: Apple\nEntity 2: Steve Jobs\n{cue}"
        text, ids = own_ids(wording, tokenizer, schema, query)
        assert prompt.ids == ids
        assert tokenizer.decode(ids) == text
        shared = tokenizer.decode(ids[: prompt.n_shared])
        assert text.startswith(shared)
        assert SENTENCE not in shared
        numbers = " ".join(map(str, prompt.ids))
        title = f"=== cue {cue} demonstrations {len(shots)} shared {prompt.n_shared}"
        sections.append(f"{title}\n{text}\n--- ids\n{numbers}\n")
    name = request.node.callspec.params["tokenizer"]
    path = GOLDEN / f"{name}.{system}.txt"
    if update_golden:
        path.write_text("\n".join(sections), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "\n".join(sections)


def test_the_golden_folder_holds_nothing_else() -> None:
    expected = {f"{tokenizer}.{system}.txt" for tokenizer, system in product(("smollm2", "llama32"), SYSTEMS)}
    assert {path.name for path in GOLDEN.glob("*.txt")} == expected


@pytest.mark.parametrize("tokenizer", ["llama32"], indirect=True)
def test_the_model_card_prompt_to_the_letter(tokenizer: Any, schema: Schema) -> None:
    prompt = make_gentune_prompt(system="generic").bind(tokenizer, schema, "no_relation")
    assert tokenizer.decode(prompt.prompt(SENTENCE, "Steve Jobs", "Apple").ids) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
        f"{GENERIC}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        f"Sentence: {SENTENCE}\nEntity 1: Steve Jobs\nEntity 2: Apple\nRelation:<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


@pytest.mark.parametrize("tokenizer", [SMOLLM2], indirect=True)
def test_two_demonstrations_in_the_embedded_models_chat(tokenizer: Any, schema: Schema) -> None:
    prompt = make_gentune_prompt(system="training", cue="Answer:", examples=SHOTS).bind(
        tokenizer, schema, "no_relation"
    )
    assert tokenizer.decode(prompt.prompt(SENTENCE, "Steve Jobs", "Apple").ids) == (
        f"<|im_start|>system\n{TRAINING}<|im_end|>\n"
        "<|im_start|>user\nSentence: Ada Lovelace joined Acme.\nEntity 1: Ada Lovelace\nEntity 2: Acme\nAnswer:"
        "<|im_end|>\n<|im_start|>assistant\nworks_for<|im_end|>\n"
        "<|im_start|>user\nSentence: Acme is near Paris.\nEntity 1: Acme\nEntity 2: Paris\nAnswer:<|im_end|>\n"
        "<|im_start|>assistant\nno_relation<|im_end|>\n"
        f"<|im_start|>user\nSentence: {SENTENCE}\nEntity 1: Steve Jobs\nEntity 2: Apple\nAnswer:<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("preset", "text"),
    [("generic", GENERIC), ("evaluation", EVALUATION), ("training", TRAINING), ("schema", SCHEMA.format("{labels}"))],
)
def test_system_presets_to_the_letter(preset: str, text: str) -> None:
    assert make_gentune_prompt(system=preset).system == text


# The label list


def test_labels_are_listed_sorted_by_what_the_model_sees_with_descriptions(schema: Schema) -> None:
    wording = make_gentune_prompt()
    listed = (
        "founded_by (the organisation was founded by the person), member of, no_relation, "
        "works_for (the person is employed by the organisation)"
    )
    assert wording.system_text(schema, "no_relation") == SCHEMA.format(listed)
    assert make_gentune_prompt(descriptions=False).label_list(schema, None) == "founded_by, member of, works_for"


def test_the_negative_label_is_listed_and_demonstrated_by_its_own_prompt_text() -> None:
    schema = parse_labels(
        {"works_for": None, "NA": {"prompt": "nothing", "description": "none of these"}}, no_relation="NA"
    )
    wording = make_gentune_prompt(examples=[{**SHOTS[1], "label": "NA"}])
    for negative in ("NA", "nothing"):  # its name, as settings know it, and its text, as the component hands it on
        wording.validate(schema, negative)
        assert wording.label_list(schema, negative) == "nothing (none of these), works_for"
        assert wording.messages(schema, negative)[-1] == {"role": "assistant", "content": "nothing"}


def test_a_description_that_mentions_the_placeholder_stays_text() -> None:
    schema = parse_labels({"a": {"description": "one of {labels}"}, "b": {"description": "{tail}"}})
    assert make_gentune_prompt().label_list(schema, None) == "a (one of {labels}), b ({tail})"
    assert "a (one of {labels}), b ({tail}) Do not" in make_gentune_prompt().system_text(schema, None)


def test_listing_labels_without_any_is_an_error() -> None:
    with pytest.raises(PromptError, match=r'lists the labels, but there are none.*"generic"'):
        make_gentune_prompt().validate(Schema(()), None)
    make_gentune_prompt(system="generic").validate(Schema(()), None)


# User turns


def test_fields_are_filled_once() -> None:
    wording = make_gentune_prompt()
    text = wording.user_text("About {tail} and {head}.", "{cue}", "{sentence}")
    assert text == "Sentence: About {tail} and {head}.\nEntity 1: {cue}\nEntity 2: {sentence}\nRelation:"


def test_words_that_are_called_as_fields_are_stay_text() -> None:
    wording = make_gentune_prompt(user="head{head}tail{tail}{sentence}sentence{cue}cue", cue="{head}")
    assert wording.user_text("s", "h", "t") == "headhtailtssentence{head}cue"


def test_a_document_is_cleaned_once() -> None:
    clean.cache_clear()
    mentions = [f"Mention {i}" for i in range(8)]
    wording = make_gentune_prompt(system="generic")
    assert len({wording.user_text("A  sentence.", a, b) for a in mentions for b in mentions if a != b}) == 56
    assert clean.cache_info().misses == 1 + 8 + 1  # and the types, which are empty


def test_a_user_turn_of_ones_own_with_types() -> None:
    wording = make_gentune_prompt(
        user="{head} [{head_type}] and {tail} [{tail_type}] in: {sentence} {{x {cue}", cue="?"
    )
    text = wording.user_text("A b C", "A", "C", "ORG\nEntity 2: X", "PERSON")
    assert text == "A [ORG Entity 2: X] and C [PERSON] in: A b C {{x ?"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("a\nb\r\nc\u2028d\u0085e", "a b c d e"),
        ("  two\t\tgaps\u00a0here ", "two gaps here"),
        ("lone \ud800 surrogate", "lone ? surrogate"),
        ("nul\x00stays", "nul\x00stays"),
        ("zero\u200bwidth \u202eright\u202c", "zerowidth right"),
        ("\x1c\x1d", ""),
    ],
)
def test_text_is_brought_to_one_line(raw: str, text: str) -> None:
    assert clean(raw) == text
    lines = make_gentune_prompt().user_text(raw, raw, raw).splitlines()
    assert len(lines) == 4


@pytest.mark.parametrize(
    "raw",
    ["Ada\u200b Love\u00adlace", "\u202eAda\u202c Lovelace", "\ufeffAda \u2067Lovelace\u2069", "Ada \u200eLovelace"],
)
def test_what_nobody_sees_is_not_read(raw: str) -> None:
    assert clean(raw) == "Ada Lovelace"


@pytest.mark.parametrize(
    "text", ["👩\u200d👩\u200d👧", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "क्\u200dष", "e\u0301", "á"]
)
def test_joiners_and_marks_stay(text: str) -> None:
    assert clean(text) == text


# Demonstrations


def test_examples_from_a_file_equal_those_in_the_config(tmp_path: Path) -> None:
    (tmp_path / "shots.json").write_text(json.dumps(SHOTS))
    (tmp_path / "shots.jsonl").write_text("".join(json.dumps(shot) + "\n" for shot in SHOTS))
    inline = make_gentune_prompt(examples=SHOTS).examples
    assert inline[0] == Example("Ada Lovelace joined Acme.", "Ada Lovelace", "Acme", "works_for")
    assert make_gentune_prompt(examples=str(tmp_path / "shots.json")).examples == inline
    assert make_gentune_prompt(examples=str(tmp_path / "shots.jsonl")).examples == inline


def test_an_example_may_name_a_label_by_name_or_by_prompt_text(schema: Schema) -> None:
    for label in ("member_of", "member of"):
        wording = make_gentune_prompt(examples=[{**SHOTS[0], "label": label}])
        wording.validate(schema, None)
        assert wording.messages(schema, None)[-1]["content"] == "member of"


def test_an_example_with_an_unknown_label_is_an_error(schema: Schema) -> None:
    wording = make_gentune_prompt(examples=[SHOTS[0], {**SHOTS[1], "label": "located_in"}])
    with pytest.raises(PromptError, match=r"examples\[1\] is answered with 'located_in'.*founded_by, member of"):
        wording.validate(schema, "no_relation")
    with pytest.raises(PromptError, match="'no_relation', which is no label"):
        make_gentune_prompt(examples=SHOTS).validate(schema, None)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"text": "A b", "head": "A", "tail": "b"}, r"examples\[0\] is .* exactly: text, head, tail, label"),
        ({**SHOTS[0], "note": "x"}, "exactly: text, head, tail, label"),
        ({**SHOTS[0], "head": 3}, r"examples\[0\]\.head is 3. Expected a string"),
        ({**SHOTS[0], "label": " "}, r"examples\[0\]\.label is ' '"),
        ({**SHOTS[0], "tail": "Globex"}, r"examples\[0\]\.tail is 'Globex', which does not occur in the text"),
        ("works_for", "Expected a mapping"),
    ],
)
def test_malformed_examples_are_named(example: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_gentune_prompt(examples=[example])


def test_unreadable_example_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"path of a \.json or \.jsonl file"):
        make_gentune_prompt(examples="shots.csv")
    (tmp_path / "shots.json").write_text("[{")
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        make_gentune_prompt(examples=str(tmp_path / "shots.json"))
    (tmp_path / "shots.json").write_text('{"text": "x"}')
    with pytest.raises(ConfigError, match="Expected a list"):
        make_gentune_prompt(examples=str(tmp_path / "shots.json"))


# Settings


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"system": 3}, "prompt.system is 3. Expected a string"),
        ({"cue": None}, "prompt.cue is None"),
        ({"user": 1}, "prompt.user is 1"),
        ({"user": "{sentence} {head} {tails}"}, r"the field \{tails\}"),
        ({"user": "{sentence} {head}"}, r"lacks \{sentence\}, \{head\} or \{tail\}"),
        ({"descriptions": 1}, "prompt.descriptions is 1"),
        ({"template_kwargs": ["x"]}, "prompt.template_kwargs is"),
        ({"template_kwargs": {"tokenize": True}}, "template_kwargs has 'tokenize'.*date_string"),
        ({"template_kwargs": {1: "x"}}, "template_kwargs has 1"),
        ({"system": "costs ${x}"}, "prompt.system"),
        ({"max_new_tokens": 0}, "prompt.max_new_tokens is 0. Expected a whole number of at least 1"),
        ({"max_new_tokens": 16.0}, r"prompt.max_new_tokens is 16\.0"),
        ({"max_new_tokens": True}, "prompt.max_new_tokens is True"),
        ({"max_new_tokens": None}, "prompt.max_new_tokens is None"),
    ],
)
def test_settings_that_cannot_be_used(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_gentune_prompt(**config)


def test_texts_from_files(tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("\ufeffDecide. Costs ${x}. {labels}\n", encoding="utf-8")
    (tmp_path / "user.txt").write_text("{sentence}\n{head} -> {tail}\n", encoding="utf-8")
    wording = make_gentune_prompt(system=str(tmp_path / "system.txt"), user=str(tmp_path / "user.txt"))
    assert wording.system == "Decide. Costs ${x}. {labels}"
    assert wording.user_text("s", "a", "b") == "s\na -> b"
    (tmp_path / "latin.txt").write_bytes("Größe".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.txt' is not UTF-8"):
        make_gentune_prompt(system=str(tmp_path / "latin.txt"))


@pytest.mark.model
@pytest.mark.parametrize("name", ["system", "user", "examples"])
def test_a_missing_file_waits_but_is_never_used_or_saved(name: str, schema: Schema, smollm2_tokenizer: Any) -> None:
    suffix = "json" if name == "examples" else "txt"
    wording = make_gentune_prompt(**{name: f"nowhere/at-all.{suffix}"})
    for use in (wording.to_dict, wording.fail, lambda: wording.bind(smollm2_tokenizer, schema, None)):
        with pytest.raises(ConfigError, match=rf"nowhere/at-all\.{suffix}'.*does not exist"):
            use()


def test_a_wording_survives_being_written_down(schema: Schema) -> None:
    wording = make_gentune_prompt(
        system="{labels}?",
        examples=SHOTS,
        cue="=>",
        descriptions=False,
        template_kwargs={"date_string": "01 Jan 2025"},
        max_new_tokens=64,
    )
    assert GenTunePrompt.from_dict(json.loads(json.dumps(wording.to_dict()))) == wording
    older = make_gentune_prompt().to_dict()
    del older["max_new_tokens"]  # as pipelines were saved before there was this setting
    assert GenTunePrompt.from_dict(older) == make_gentune_prompt()


@pytest.mark.parametrize("tokenizer", ["llama32"], indirect=True)
def test_template_kwargs_reach_the_template(tokenizer: Any, schema: Schema) -> None:
    wording = make_gentune_prompt(template_kwargs={"date_string": "01 Jan 2025"})
    ids = wording.bind(tokenizer, schema, None).prompt("s", "a", "b").ids
    assert "Today Date: 01 Jan 2025\n" in tokenizer.decode(ids)


# Labels


@pytest.mark.parametrize("tokenizer", TOKENIZERS, indirect=True)
def test_label_ids_follow_the_prompt_as_the_template_would_put_them(tokenizer: Any, schema: Schema) -> None:
    builder = make_gentune_prompt().bind(tokenizer, schema, "no_relation")
    prompt = builder.prompt(SENTENCE, "Apple", "Steve Jobs")
    names = ["works_for", "member of", "no_relation", "/people/person/education./education", "P17", "né(e)", "雇用"]
    labels = builder.label_ids(names)
    for name, ids in zip(names, labels.sequences):
        turns = [
            *builder.wording.messages(schema, "no_relation"),
            {
                "role": "user",
                "content": builder.wording.user_text(SENTENCE, "Apple", "Steve Jobs"),
            },
            {"role": "assistant", "content": name},
        ]
        own = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False, date_string="26 Jul 2024")
        assert tuple(own[: len(prompt.ids) + len(ids) + 1]) == (*prompt.ids, *ids, labels.terminal)
        assert builder.decode(ids) == name


@pytest.mark.parametrize("tokenizer", TOKENIZERS, indirect=True)
def test_labels_that_cannot_follow_the_prompt(tokenizer: Any, schema: Schema) -> None:
    builder = make_gentune_prompt().bind(tokenizer, schema, "no_relation")
    for label in (" a", "a\n", "\ta"):
        with pytest.raises(PromptError, match="begins or ends with white space"):
            builder.label_ids([label])
    with pytest.raises(PromptError, match="'' has no tokens"):
        builder.label_ids([""])
    with pytest.raises(PromptError, match="not valid Unicode"):
        builder.label_ids(["a\ud800"])


def test_the_default_wording_lists_the_labels() -> None:
    assert make_gentune_prompt() == GenTunePrompt(
        system=SCHEMA.format("{labels}"),
        user="Sentence: {sentence}\nEntity 1: {head}\nEntity 2: {tail}\n{cue}",
        template_kwargs={},
    )
