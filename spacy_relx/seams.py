"""Where a text may be cut so that its parts, tokenised one by one, have the token ids of the whole.

The merges of byte-level BPE never leave the pieces into which the tokenizer first splits a text. So a text can be cut
where a piece ends, if the pieces on each side come out the same without the other side. That depends on the tokenizer's
pattern, and is proven here for two of them at one kind of place: between a line break and an ASCII letter.

- No alternative of either pattern matches a letter after a line break, so a piece always ends there.
- Pieces are matched from left to right and neither pattern looks behind, so what follows the cut does not depend on
  what stands before it.
- Either pattern looks ahead by one character at most, and asks only whether it is white space. What stands before the
  cut is therefore tokenised with some letter after it, whichever it is.

The pair of a prompt stands in lines of its own. Its sentence, heads and tails are then tokenised once each.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from spacy_relx.engine.types import TokenIds

#: Lines whose ids are kept. A document of 200 mentions has 400 lines, and one for each stretch of text around a pair.
_N_LINES = 1024

_SEAM = re.compile(r"\n(?=[A-Za-z])")

# Stands for the letter that begins the next line.
_LETTER = "a"

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False}

#: The pattern of Llama 3. Source: tokenizer.json of Llama-3.2-1B-Instruct.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


class LineEncoder:
    """Tokenises texts line by line, each line once.

    Args:
        encode: Tokenises a text; its tokenizer is one that `can_cut` allows.
    """

    def __init__(self, encode: Callable[[str], TokenIds]) -> None:
        def line(text: str) -> TokenIds:
            return encode(f"{text}\n{_LETTER}")[:-n_letter]

        n_letter = len(encode(_LETTER))
        self._line = lru_cache(_N_LINES)(line)
        self._last = lru_cache(_N_LINES)(encode)

    def __call__(self, text: str) -> TokenIds:
        """Token ids of a text, equal to those of the whole text at once."""
        *lines, last = _SEAM.split(text)
        ids: list[int] = []
        for line in lines:
            ids += self._line(line)
        ids += self._last(last)
        return tuple(ids)


def can_cut(backend: Any) -> bool:
    """Whether a tokenizer's texts may be cut between a line break and a letter.

    Args:
        backend: The fast tokenizer (`tokenizers.Tokenizer`), or None if there is none.
    """
    if backend is None or backend.normalizer is not None or backend.pre_tokenizer is None:
        return False
    if type(backend.model).__name__ != "BPE" or backend.model.dropout is not None:
        return False
    # Special tokens are switched off; other added tokens are matched before the text is split, and may span a cut.
    if not all(token.special for token in backend.get_added_tokens_decoder().values()):
        return False
    try:
        steps = json.loads(backend.pre_tokenizer.__getstate__())
    except Exception:  # a pre-tokenizer written in Python; the library raises a plain Exception
        return False
    return _is_proven(steps["pretokenizers"] if steps["type"] == "Sequence" else [steps])


def _is_proven(steps: list[dict[str, Any]]) -> bool:
    *before, last = steps
    if not _BYTE_LEVEL.items() <= last.items():
        return False
    if last["use_regex"]:  # the pattern of GPT-2, within the stretches that digits leave
        return all(step["type"] == "Digits" for step in before)
    splits = {"type": "Split", "pattern": {"Regex": _LLAMA3}, "behavior": "Isolated", "invert": False}
    return before == [splits]
