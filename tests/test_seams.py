"""Texts tokenised line by line: the ids of the whole text, and each line once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from spacy_relx.chat import ChatTemplate
from spacy_relx.prompt_block import make_gentune_prompt
from spacy_relx.prompts import GenTunePrompt
from spacy_relx.schema import Label, Schema
from spacy_relx.seams import LineEncoder, can_cut

TOKENIZERS = (pytest.param("smollm2", marks=pytest.mark.model), "llama32")
many = settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

NASTY = (
    *"\n\n\n\n  \t\r\x0b\x0c\x1c\x85\u00a0\u2028\u3000\u200b\u200d\ufeff\x00'\u2019.,:;!?()-_<|>/#@%",
    *"aZtsmd\u017f\u212a09\u0663\u00b2\u2167\u4e2d\u65e5\u0e01\u0e33\u0915\u094d\u0301\u0308\u00e9\ud55c",
    *("\U0001f600", "\U0001f469\u200d\U0001f4bb", "\U0001f1e9\U0001f1ea", "e\u0301", "Entity 1: ", "Sentence: ", "'s"),
    *(
        "'ll",
        "'S",
        "\r\n",
        " \n",
        "\n ",
        "\n\n\n",
        "   ",
        "<|im_end|>",
        "<|eot_id|>",
        "<|im_start|>",
        "Inc.\n",
        "...\n",
    ),
    *("\n'", "\n\u0301", "\na", "\nE", "1\n", "1234\nA", ")\n\n", "\u4e2d\nA", "\U0001f600\nA"),
)
TEXT = st.lists(st.one_of(st.sampled_from(NASTY), st.characters(exclude_categories=["Cs"])), max_size=30).map("".join)


@pytest.fixture(scope="session")
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_tokenizer")


@many
@given(text=TEXT)
@example("")
@example("\n")
@example("\na")
@example("Sentence: \nEntity 1: \nEntity 2: \nRelation:")
@example(" \n\n \nA\n\nB \n")
@example("Acme Inc.\nEntity 1: ...\nEntity 2: 12345\nRelation:")
@pytest.mark.parametrize("tokenizer", TOKENIZERS, indirect=True)
def test_lines_give_the_ids_of_the_whole_text(tokenizer: Any, text: str) -> None:
    def encode(text: str) -> tuple[int, ...]:
        backend = tokenizer.backend_tokenizer
        backend.encode_special_tokens = True
        return tuple(backend.encode(text, add_special_tokens=False).ids)

    assert can_cut(tokenizer.backend_tokenizer)
    assert LineEncoder(encode)(text) == encode(text)


@many
@given(text=TEXT, other=TEXT)
@pytest.mark.parametrize("tokenizer", TOKENIZERS, indirect=True)
def test_pieces_end_between_a_line_break_and_a_letter(tokenizer: Any, text: str, other: str) -> None:
    # What the ids alone may not show, because pieces of rare characters are single bytes anyway.
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    before, after = f"{text}\n", f"Z{other}"
    whole = [piece for piece, _ in split(before + after)]
    assert whole == [piece for piece, _ in split(f"{before}a")][:-1] + [piece for piece, _ in split(after)]


@settings(many, max_examples=100)
@given(parts=st.tuples(TEXT, TEXT, TEXT, TEXT, TEXT), left=TEXT, right=TEXT)
@pytest.mark.parametrize("tokenizer", TOKENIZERS, indirect=True)
def test_prompts_have_the_ids_of_whole_turns(
    tokenizer: Any, parts: tuple[str, str, str, str, str], left: str, right: str
) -> None:
    user = f"{left}{{head_type}}\nSentence: {{sentence}}\nEntity 1: {{head}}\n{{tail}} {{tail_type}}\nE{{cue}}"
    wording = GenTunePrompt(system="", user=user, cue=right)
    builder = wording.bind(tokenizer, Schema((Label("a", "a"),)), None)
    made = builder.prompt(*parts)
    builder.chat._encode_query = builder.chat.encode
    assert made == builder.chat.prompt(wording.user_text(*parts))


@pytest.mark.parametrize("tokenizer", TOKENIZERS, indirect=True)
def test_a_document_is_tokenised_line_by_line(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = make_gentune_prompt(system="generic").bind(tokenizer, Schema((Label("a", "a"),)), None)
    calls: list[str] = []
    ids_of = ChatTemplate._ids
    monkeypatch.setattr(ChatTemplate, "_ids", lambda self, text: calls.append(text) or ids_of(self, text))
    mentions = [f"Mention {i}" for i in range(8)]
    prompts = [builder.prompt("A sentence.", a, b) for a in mentions for b in mentions if a != b]
    assert len(set(prompts)) == 56
    # The sentence, eight heads and eight tails. The rest of the turn was seen when the template was checked.
    assert len(calls) == len(set(calls)) == 1 + 8 + 8


def test_kept_lines_are_bounded() -> None:
    encoded: list[str] = []

    def encode(text: str) -> tuple[int, ...]:
        encoded.append(text)
        return tuple(map(ord, text))

    lines = LineEncoder(encode)
    for i in range(5000):
        lines(f"Line {i}\nEnd {i}")
    assert all(cache.cache_info().currsize <= 1024 for cache in (lines._line, lines._last))
    n = len(encoded)
    assert lines("Line 0\nEnd 4999") == tuple(map(ord, "Line 0\nEnd 4999"))
    assert len(encoded) == n + 1


# Tokenizers of which nothing is proven


def gpt2_like(**changes: Any) -> Tokenizer:
    vocab = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for name, value in changes.items():
        setattr(backend, name, value)
    return backend


def byte_level(**settings: Any) -> Any:
    return pre_tokenizers.ByteLevel(**{"add_prefix_space": False, "use_regex": False} | settings)


def test_gpt2s_pattern_is_proven() -> None:
    assert can_cut(gpt2_like())
    assert can_cut(
        gpt2_like(pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Digits(), byte_level(use_regex=True)]))
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": normalizers.NFC()},
        {"model": models.WordLevel({"a": 0}, unk_token="a")},
        {"model": models.BPE({"a": 0}, [], dropout=0.1)},
        {"pre_tokenizer": pre_tokenizers.Metaspace()},
        {"pre_tokenizer": byte_level(add_prefix_space=True, use_regex=True)},
        {"pre_tokenizer": byte_level()},
        {"pre_tokenizer": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\w+|\W+"), "isolated"), byte_level()])},
        {"pre_tokenizer": pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), byte_level(use_regex=True)])},
        {"pre_tokenizer": pre_tokenizers.PreTokenizer.custom(object())},
    ],
)
def test_other_tokenizers_are_given_whole_turns(changes: dict[str, Any]) -> None:
    assert not can_cut(gpt2_like(**changes))
    assert not can_cut(None)


def test_added_tokens_may_span_a_cut() -> None:
    backend = gpt2_like()
    backend.add_tokens([AddedToken("<|x|>", special=True)])
    assert can_cut(backend)
    backend.add_tokens([AddedToken("\nE", special=False)])
    assert not can_cut(backend)


def test_without_a_pre_tokenizer() -> None:
    backend = gpt2_like()
    backend.pre_tokenizer = None
    assert not can_cut(backend)
