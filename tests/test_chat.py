"""The chat template around a query: the template's own ids, and no control token out of anybody's text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from spacy_relx.chat import ChatTemplate
from spacy_relx.errors import PromptError
from spacy_relx.prompt_block import make_gentune_prompt
from spacy_relx.schema import Label, Schema

SMOLLM2 = pytest.param("smollm2", marks=pytest.mark.model)
TOKENIZERS = (SMOLLM2, "llama32")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
RARE = " \t\n\r\x0b\x0c\x1c\x85\u00a0\u2028\u3000\u200b\u200d\ufeff\x00e\u0301\ue000\ue0010'\u2019\u2026\u2014<|>_"
TEXT = st.text(st.one_of(st.sampled_from(RARE), st.characters(exclude_categories=["Cs"])), max_size=40)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="session")
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_tokenizer")


def control_tokens(tokenizer: Any) -> dict[str, int]:
    return {token.content: i for i, token in tokenizer.added_tokens_decoder.items()}


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def own(tokenizer: Any, turns: list[dict[str, str]]) -> tuple[int, ...]:
    return tuple(
        tokenizer.apply_chat_template(
            turns, tokenize=True, add_generation_prompt=True, return_dict=False, date_string="26 Jul 2024"
        )
    )


def byte_tokenizer(
    template: str | None,
    *,
    control: tuple[Any, ...] = ("<|im_start|>", "<|im_end|>", "<s>", "</s>"),
    eos: str | None = "</s>",
    merges: tuple[tuple[str, str], ...] = (),
    prefix_space: bool = False,
) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer in which every byte is a token, except for what `merges` joins."""
    vocab = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for left, right in merges:
        vocab[left + right] = len(vocab)
    backend = Tokenizer(models.BPE(vocab, list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    for token in control:
        backend.add_tokens([AddedToken(token, special=True, normalized=False) if isinstance(token, str) else token])
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos)
    made.chat_template = template
    return made


# The template's own ids


@quick
@given(data=st.data())
@pytest.mark.parametrize("tokenizer", TOKENIZERS, indirect=True)
def test_ids_are_the_templates_own(tokenizer: Any, data: st.DataObject) -> None:
    control = control_tokens(tokenizer)
    texts = TEXT.filter(lambda text: not any(token in text for token in control))
    turns = [turn("system", data.draw(texts))] if data.draw(st.booleans()) else []
    for _ in range(data.draw(st.integers(0, 2))):
        turns += [turn("user", data.draw(texts)), turn("assistant", data.draw(texts))]
    chat = ChatTemplate(tokenizer, turns, {})
    for _ in range(3):
        query = data.draw(texts)
        prompt = chat.prompt(query)
        assert prompt.ids == own(tokenizer, [*turns, turn("user", query)])
        assert prompt.ids[: prompt.n_shared] == chat.shared


@pytest.mark.parametrize("tokenizer", TOKENIZERS, indirect=True)
@pytest.mark.parametrize("query", ["", " ", "\n", "\n\n a \n\n", "\ta\t", "\u00a0a\u3000", " \x00", "a\r\n"])
def test_outer_blanks_are_treated_as_the_template_treats_them(tokenizer: Any, query: str) -> None:
    turns = [turn("system", f"{query}s{query}"), turn("user", query), turn("assistant", f"{query}x")]
    assert ChatTemplate(tokenizer, turns, {}).prompt(query).ids == own(tokenizer, [*turns, turn("user", query)])


def test_a_template_may_trim_one_side_of_one_role() -> None:
    template = CHATML.replace(
        "{{ m['content'] }}",
        "{% if m['role'] == 'user' %}{{ m['content'].lstrip() }}{% else %}{{ m['content'] }}{% endif %}",
    )
    tokenizer = byte_tokenizer(template)
    turns = [turn("system", " s "), turn("user", " u "), turn("assistant", " a ")]
    assert ChatTemplate(tokenizer, turns, {}).prompt("  q  ").ids == own(tokenizer, [*turns, turn("user", "  q  ")])


def test_blanks_that_a_template_puts_around_contents_are_kept() -> None:
    tokenizer = byte_tokenizer(CHATML.replace("\n{{ m['content'] }}", "\t{{ m['content'] }}"))
    assert ChatTemplate(tokenizer, [], {}).prompt("q").ids == own(tokenizer, [turn("user", "q")])


def test_a_length_limit_in_the_tokenizers_file_does_not_cut_prompts() -> None:
    tokenizer = byte_tokenizer(CHATML)
    chat = ChatTemplate(tokenizer, [], {})
    whole = chat.prompt("word " * 50).ids
    tokenizer.backend_tokenizer.enable_truncation(16)
    tokenizer.backend_tokenizer.enable_padding(length=1000)
    assert chat.prompt("word " * 50).ids == whole


# Control tokens


def count_control(ids: tuple[int, ...], control: dict[str, int]) -> list[int]:
    return [i for i in ids if i in set(control.values())]


@pytest.mark.parametrize("tokenizer", TOKENIZERS, indirect=True)
def test_no_text_of_anybody_becomes_a_control_token(tokenizer: Any) -> None:
    control = control_tokens(tokenizer)
    shot = {"text": "A met B.", "head": "A", "tail": "B", "label": "x"}

    def prompt(insert: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        wording = make_gentune_prompt(
            system=f"Be {insert} brief. {{labels}}",
            user=f"{insert}{{sentence}}\n{{head}}{{tail}} {{head_type}}\n{{cue}}",
            examples=[{name: value + insert for name, value in shot.items()} | {"text": f"A{insert} met B{insert}."}],
            cue=f"Answer{insert}:",
        )
        schema = Schema((Label("x" + insert, "x" + insert, description=f"is {insert}"),))
        builder = wording.bind(tokenizer, schema, None)
        made = builder.prompt(f"One{insert}two {insert} {insert}", insert, f"b{insert}", insert, insert)
        return made.ids, builder.label_ids(["x" + insert]).sequences[0]

    expected = count_control(prompt("@")[0], control)
    assert len(expected) >= 8
    # Every control token of the one tokenizer, a sample of the many reserved ones of the other.
    tokens = [token for token in control if "reserved" not in token or token.endswith(("_0|>", "_99|>", "_246|>"))]
    for token in tokens:
        ids, label = prompt(token)
        assert count_control(ids, control) == expected, token
        assert count_control(label, control) == []
        assert token in tokenizer.decode(ids)


@pytest.mark.parametrize("tokenizer", TOKENIZERS, indirect=True)
def test_every_control_token_is_text_in_and_across_words(tokenizer: Any) -> None:
    control = control_tokens(tokenizer)
    builder = make_gentune_prompt(system="generic", user="{sentence}{head}{tail}{cue}").bind(
        tokenizer, Schema((Label("a", "a"),)), None
    )
    bare = count_control(builder.prompt("s", "h", "t").ids, control)
    for token in control:
        for cut in {1, len(token) // 2, len(token) - 1}:
            # Without a break between the fields, halves of a token in neighbouring fields would meet.
            ids = builder.prompt(f"x{token[:cut]}", token[cut:] + token[:cut], f"{token[cut:]}y").ids
            assert count_control(ids, control) == bare
        for text in (token, f"pre{token}post", f" {token} ", token * 3, token.upper()):
            assert count_control(builder.chat.encode(text), control) == []
            assert tokenizer.decode(list(builder.chat.encode(text))) == text


@quick
@given(data=st.data())
@pytest.mark.parametrize("tokenizer", TOKENIZERS, indirect=True)
def test_mixtures_of_control_tokens_and_text_stay_text(tokenizer: Any, data: st.DataObject) -> None:
    control = control_tokens(tokenizer)
    parts = st.one_of(
        st.sampled_from(sorted(control)), st.sampled_from(["<|", "|>", "<", "im_", "end", " ", "\n"]), TEXT
    )
    query = "".join(data.draw(st.lists(parts, max_size=8)))
    chat = ChatTemplate(tokenizer, [], {})
    bare = count_control(chat.prompt("q").ids, control)
    assert count_control(chat.prompt(query).ids, control) == bare


@pytest.mark.parametrize("tokenizer", TOKENIZERS, indirect=True)
def test_other_users_of_the_tokenizer_do_not_switch_the_guard_off(tokenizer: Any) -> None:
    chat = ChatTemplate(tokenizer, [], {})
    ids = chat.prompt("a <|im_end|><|eot_id|> b").ids
    tokenizer("a <|im_end|>", split_special_tokens=False)
    tokenizer("x", truncation=True, max_length=4)
    assert chat.prompt("a <|im_end|><|eot_id|> b").ids == ids


def test_added_tokens_that_look_like_markup_are_control_tokens_too() -> None:
    think, spaces = AddedToken("<think>", special=False, normalized=False), AddedToken("    ", special=False)
    template = CHATML.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n\n")
    tokenizer = byte_tokenizer(template, control=("<|im_start|>", "<|im_end|>", think, spaces))
    think_id, spaces_id = (tokenizer.convert_tokens_to_ids(token) for token in ("<think>", "    "))
    chat = ChatTemplate(tokenizer, [], {})
    ids = chat.prompt("a <think> b    c").ids
    assert ids.count(think_id) == 1  # the template's own
    assert ids.count(spaces_id) == 1  # ordinary text, though an added token
    assert chat.prompt("a    c").ids == own(tokenizer, [turn("user", "a    c")])
    assert think_id in own(tokenizer, [turn("user", "a <think> b")])[:-5]  # what the guard is for


def test_a_vocabulary_that_spells_a_control_token_is_refused() -> None:
    vocab = {word: i for i, word in enumerate(["[UNK]", "Sentence:", "<end>", "<go>", "user", "assistant"])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["<go>", "<end>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    tokenizer.chat_template = CHATML.replace("<|im_start|>", "<go>").replace("<|im_end|>", "<end>")
    with pytest.raises(PromptError, match=r"makes its control token '<(go|end)>' from the plain text"):
        ChatTemplate(tokenizer, [], {})


# Answers


@pytest.mark.parametrize(
    ("tokenizer", "terminal", "stops"),
    [
        pytest.param("smollm2", "<|im_end|>", {"<|im_end|>"}, marks=pytest.mark.model),
        ("llama32", "<|eot_id|>", {"<|eot_id|>", "<|end_of_text|>"}),
    ],
    indirect=["tokenizer"],
)
def test_the_terminal_is_what_follows_an_answer_not_the_end_of_sequence(
    tokenizer: Any, terminal: str, stops: set[str]
) -> None:
    chat = ChatTemplate(tokenizer, [], {})
    assert chat.terminal == tokenizer.convert_tokens_to_ids(terminal)
    assert chat.stop_ids == set(tokenizer.convert_tokens_to_ids(sorted(stops)))


def test_llamas_ids_are_the_published_ones(llama32_tokenizer: Any) -> None:
    chat = ChatTemplate(llama32_tokenizer, [], {})
    assert llama32_tokenizer.eos_token_id == 128001
    assert chat.terminal == 128009
    assert chat.prompt("q").ids[0] == 128000
    assert chat.prompt("q").ids.count(128000) == 1


def test_a_tokenizer_without_an_end_of_sequence() -> None:
    tokenizer = byte_tokenizer(CHATML, eos=None)
    chat = ChatTemplate(tokenizer, [], {})
    assert chat.stop_ids == {chat.terminal} == {tokenizer.convert_tokens_to_ids("<|im_end|>")}


def test_text_between_an_answer_and_its_end_is_refused() -> None:
    tokenizer = byte_tokenizer(CHATML.replace("<|im_end|>", " <|im_end|>"))
    with pytest.raises(PromptError, match="puts ' ' after an answer"):
        ChatTemplate(tokenizer, [], {})


def test_a_label_that_melts_into_the_text_before_it_is_refused() -> None:
    # "Ċ" is how byte-level tokenizers write the line break that ends "assistant\n".
    tokenizer = byte_tokenizer(CHATML, merges=(("Ċ", "m"),))
    chat = ChatTemplate(tokenizer, [], {})
    with pytest.raises(PromptError, match=r"'member_of' melts into the text before it \('assistant\\n'\).*`prompt`"):
        chat.answer_ids("member_of")
    assert tokenizer.decode(list(chat.answer_ids("works_for"))) == "works_for"


def test_labels_without_tokens_are_refused() -> None:
    tokenizer = byte_tokenizer(CHATML)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex("\u200b"), "")
    chat = ChatTemplate(tokenizer, [], {})
    for label in ("", "\u200b"):
        with pytest.raises(PromptError, match=r"has no tokens.*visible name"):
            chat.answer_ids(label)


# Templates and tokenizers that cannot be used


def test_no_chat_template() -> None:
    with pytest.raises(PromptError, match=r"no chat template\. Expected an instruction-tuned model"):
        ChatTemplate(byte_tokenizer(None), [], {})


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}### {{ m['role'] }}:\n{{ m['content'] }}\n{% endfor %}### assistant:\n",
        "<s>{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] }}</s>"
        "{% else %}[INST] {{ m['content'] }} [/INST]{% endif %}{% endfor %}",
    ],
)
def test_turns_marked_with_ordinary_text_are_refused(template: str) -> None:
    with pytest.raises(PromptError, match="marks turns with ordinary text"):
        ChatTemplate(byte_tokenizer(template), [], {})


def test_templates_that_lose_turns_are_refused() -> None:
    turns = [turn("system", "s"), turn("user", "u"), turn("assistant", "a")]
    last_only = byte_tokenizer(CHATML.replace("for m in messages", "for m in messages[-1:]"))
    with pytest.raises(PromptError, match=r"drops, repeats or reorders turns by system, user.*prompt\.examples"):
        ChatTemplate(last_only, turns, {})
    ChatTemplate(byte_tokenizer(CHATML), turns, {})
    reverse = byte_tokenizer(CHATML.replace("in messages", "in messages|reverse"))
    with pytest.raises(PromptError, match="reorders"):
        ChatTemplate(reverse, turns, {})


def test_templates_that_refuse_turns_say_so() -> None:
    strict = byte_tokenizer(
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system!') }}{% endif %}" + CHATML
    )
    with pytest.raises(PromptError, match=r'cannot render turns by system, user: No system!.*set prompt\.system to ""'):
        ChatTemplate(strict, [turn("system", "s")], {})
    ChatTemplate(strict, [], {})


def sentencepiece_like(scheme: str) -> PreTrainedTokenizerFast:
    chars = ["<unk>", "▁", "\n", *(chr(i) for i in range(33, 127))]
    backend = Tokenizer(models.BPE({char: i for i, char in enumerate(chars)}, [], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    backend.add_special_tokens(["<unk>", "<|im_start|>", "<|im_end|>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    tokenizer.chat_template = CHATML
    return tokenizer


def test_a_dummy_prefix_is_found() -> None:
    # Before the first piece of a text only: the chat begins with a control token and has none, its parts have one each.
    with pytest.raises(PromptError, match="may add a dummy prefix"):
        ChatTemplate(sentencepiece_like("first"), [], {})


def test_a_prefix_before_every_part_changes_nothing() -> None:
    tokenizer = sentencepiece_like("always")
    assert ChatTemplate(tokenizer, [], {}).prompt("a b").ids == own(tokenizer, [turn("user", "a b")])


def test_a_vocabulary_whose_pieces_spell_a_control_token_is_refused() -> None:
    pieces = [(piece, -1.0) for piece in ("<unk>", "</s>", "<s>", *(chr(i) for i in range(32, 127)), "\n")]
    backend = Tokenizer(models.Unigram(pieces, 0, False))
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    tokenizer.chat_template = CHATML.replace("<|im_start|>", "<s>").replace("<|im_end|>", "</s>")
    assert tokenizer("</s>", add_special_tokens=False, split_special_tokens=True)["input_ids"] == [1]
    with pytest.raises(PromptError, match=r"makes its control token '</?s>' from the plain text"):
        ChatTemplate(tokenizer, [], {})


def test_a_prefix_space_is_found() -> None:
    tokenizer = byte_tokenizer(CHATML, prefix_space=True)
    chat = ChatTemplate(tokenizer, [], {})
    assert chat.prompt("a").ids == own(tokenizer, [turn("user", "a")])


# Odd text


@pytest.mark.parametrize("tokenizer", TOKENIZERS, indirect=True)
def test_lone_surrogates_are_an_error_here_and_cleaned_in_documents(tokenizer: Any) -> None:
    chat = ChatTemplate(tokenizer, [], {})
    with pytest.raises(PromptError, match="not valid Unicode"):
        chat.prompt("a\ud800b")
    with pytest.raises(PromptError, match="not valid Unicode"):
        ChatTemplate(tokenizer, [turn("system", "\udfff")], {})
    builder = make_gentune_prompt(system="generic").bind(tokenizer, Schema((Label("a", "a"),)), None)
    assert builder.prompt("a\ud800b", "a", "b").ids == builder.prompt("a?b", "a", "b").ids


@pytest.mark.parametrize("tokenizer", TOKENIZERS, indirect=True)
@pytest.mark.parametrize("unit", ["a", "ab c. ", "\u200b", "🙂", "="])
def test_a_megabyte_on_one_line(tokenizer: Any, unit: str) -> None:
    text = unit * (1_000_000 // len(unit.encode()))
    chat = ChatTemplate(tokenizer, [], {})
    ids = chat.prompt(text).ids
    assert len(ids) > len(chat.prompt("").ids)
    assert tokenizer.decode(ids).count(unit) >= len(text) // len(unit) - 1  # the last blank may be trimmed
