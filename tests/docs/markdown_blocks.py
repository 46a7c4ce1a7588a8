"""Code blocks of a Markdown page: found, run in order, and their printed output compared or written anew.

What counts as what:

- A fence ```` ```python ```` is run; the blocks of a page share their names and a working folder.
- A fence ```` ```text ```` right after it is what the block prints, numbers with a point being close rather than equal.
- `<!-- setup` … `-->` is Python that is run there and that no reader sees.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

#: Probabilities differ a little from machine to machine.
TOLERANCE = 0.05

_PARTS = re.compile(
    r"^<!-- setup\n(?P<setup>.*?)^-->$"
    r"|^```(?P<language>[\w-]*)[^\n]*\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_NUMBER = re.compile(r"\d*\.\d+")


@dataclass(frozen=True)
class Block:
    """Python on a page.

    Attributes:
        line: The line of its first line, from 1.
        code: What is run.
        end: Where its fence ends, in characters of the page.
        output: What the page says that it prints; None if it says nothing.
        output_span: Where the fence of the output is, in characters of the page.
        hidden: Whether it is a setup that no reader sees.
    """

    line: int
    code: str
    end: int
    output: str | None = None
    output_span: tuple[int, int] | None = None
    hidden: bool = False


def python_blocks(page: str) -> list[Block]:
    """Return the Python blocks of a page's text, in order."""
    parts = list(_PARTS.finditer(page))
    blocks = []
    for part, following in zip(parts, [*parts[1:], None]):
        if part["setup"] is not None:
            blocks.append(Block(_line(page, part.start("setup")), part["setup"], part.end(), hidden=True))
        elif part["language"] == "python":
            line = _line(page, part.start("code"))
            output, span = None, None
            if (
                following is not None
                and following["language"] == "text"
                and not page[part.end() : following.start()].strip()
            ):
                output, span = following["code"], following.span()
            blocks.append(Block(line, part["code"], part.end(), output, span))
    return blocks


def fences(page: str, language: str) -> list[tuple[int, str]]:
    """Return line and content of a page's fences of a language."""
    return [
        (_line(page, part.start("code")), part["code"])
        for part in _PARTS.finditer(page)
        if part["setup"] is None and part["language"] == language
    ]


class PageRun:
    """Runs the blocks of a page one after the other.

    Args:
        path: The page, for tracebacks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: dict[str, Any] = {"__name__": "__page__"}

    def run(self, block: Block) -> str:
        """Run a block and return what it prints."""
        tree = ast.parse("\n" * (block.line - 1) + block.code, str(self.path))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, str(self.path), "exec"), self.names)
        return "".join(f"{line.rstrip()}\n" for line in printed.getvalue().splitlines())


def same_output(printed: str, shown: str) -> bool:
    """Whether two outputs are the same but for digits that machines may differ in."""
    if _NUMBER.split(printed) != _NUMBER.split(shown):
        return False
    pairs = zip(_NUMBER.findall(printed), _NUMBER.findall(shown))
    return all(abs(float(a) - float(b)) <= TOLERANCE for a, b in pairs)


def with_outputs(page: str, outputs: list[tuple[Block, str]]) -> str:
    """Return a page's text with the outputs of its blocks as given; an empty one has no fence."""
    for block, printed in sorted(outputs, key=lambda item: -item[0].end):
        if block.hidden:
            continue
        end = block.end if block.output_span is None else block.output_span[1]
        fence = f"\n\n```text\n{printed}```" if printed else ""
        page = page[: block.end] + fence + page[end:]
    return page


def _line(page: str, offset: int) -> int:
    return page.count("\n", 0, offset) + 1
