"""The collector of code blocks, on a page of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from markdown_blocks import PageRun, fences, python_blocks, same_output, with_outputs

PAGE = """\
# A page

<!-- setup
hidden = 2
-->

```python
print("score", hidden * 0.4)
```

```text
score 0.81
```

Words between.

```text
no output
```

```ini
[a]
```

```python
print("new")
```
"""


def test_blocks_outputs_and_setups_are_told_apart() -> None:
    hidden, shown, last = python_blocks(PAGE)
    assert (hidden.code, hidden.hidden, hidden.line) == ("hidden = 2\n", True, 4)
    assert (shown.output, shown.line) == ("score 0.81\n", 8)
    assert last.output is None
    assert fences(PAGE, "ini") == [(22, "[a]\n")]


def test_blocks_share_names() -> None:
    run = PageRun(Path("page.md"))
    assert [run.run(block) for block in python_blocks(PAGE)] == ["", "score 0.8\n", "new\n"]


def test_an_error_names_page_and_line() -> None:
    (block,) = python_blocks("\n\n```python\n\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        PageRun(Path("page.md")).run(block)
    assert (str(caught.traceback[-1].path), caught.traceback[-1].lineno + 1) == ("page.md", 5) or (
        caught.traceback[-1].lineno + 1 == 5
    )


@pytest.mark.parametrize(
    ("printed", "same"),
    [("a 0.84\n", True), ("a 0.7\n", False), ("b 0.81\n", False), ("a 0.81 0.2\n", False), ("", False)],
)
def test_numbers_are_close_and_words_equal(printed: str, same: bool) -> None:
    assert same_output(printed, "a 0.81\n") is same


def test_outputs_are_written_anew_added_and_removed() -> None:
    blocks = python_blocks(PAGE)
    page = with_outputs(PAGE, list(zip(blocks, ["", "other\n", "new\n"])))
    assert page == PAGE.replace("score 0.81", "other") + "\n```text\nnew\n```\n"
    assert [block.output for block in python_blocks(page)] == [None, "other\n", "new\n"]
    again = python_blocks(page)
    assert with_outputs(page, list(zip(again, ["", "score 0.81\n", ""]))) == PAGE
