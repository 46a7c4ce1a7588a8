"""What mkdocs does beside its own work: fills in generated parts, and sees to it that no page needs the network.

A line `<!-- generated: NAME -->` on a page stands for what the function of that name in `GENERATORS` returns.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import benchmark_tables
import command_line
import config_reference
import facts
from mkdocs.exceptions import PluginError

if TYPE_CHECKING:
    from collections.abc import Callable

GENERATORS: dict[str, Callable[[], str]] = {
    "config-factory": config_reference.factory,
    "config-label": config_reference.label,
    "config-blocks": config_reference.blocks,
    "command-line": command_line.commands,
    **benchmark_tables.TABLES,
    **facts.FACTS,
}

_MARK = re.compile(r"<!-- generated: ([\w-]+) -->")
_HIDDEN = re.compile(r"^<!-- (?:setup\n.*?|not run: [^\n]*?)-->\n", re.MULTILINE | re.DOTALL)
_FETCHED = re.compile(
    r'<(?:script|img|iframe|source)\b[^>]*\bsrc="(?:https?:)?//[^>]*>|'
    r'<link\b[^>]*\bstylesheet\b[^>]*"(?:https?:)?//[^>]*>'
)


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Put generated text where a page asks for it, and leave out what is for the tests of the page."""

    def generated(mark: re.Match[str]) -> str:
        if mark[1] not in GENERATORS:
            raise PluginError(f"{page.file.src_uri} asks for {mark[1]!r}. Expected one of: {', '.join(GENERATORS)}.")
        return GENERATORS[mark[1]]()

    return _MARK.sub(generated, _HIDDEN.sub("", markdown))


def on_post_page(output: str, page: Any, **kwargs: Any) -> str:
    """Refuse a page that would fetch something: the site is read offline, too."""
    if found := _FETCHED.search(output):
        raise PluginError(f"{page.file.src_uri} would fetch from the network: {found[0]}")
    return output
