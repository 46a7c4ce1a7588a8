from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from served.server import FakeServer
from spacy_relx.engine import loading
from spacy_relx.engine.remote import client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pause for milliseconds between attempts."""
    monkeypatch.setattr(client, "_FIRST_PAUSE", 0.01)


@pytest.fixture(autouse=True)
def one_tokenizer(monkeypatch: pytest.MonkeyPatch, smollm2_tokenizer: Any) -> None:
    """Load the tokenizer once for all tests."""
    monkeypatch.setattr(loading, "load_tokenizer", lambda spec: smollm2_tokenizer)


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[FakeServer, str]]]:
    """Start servers that end with the test."""
    with ExitStack() as stack:

        def run(*arguments: Any, **settings: Any) -> tuple[FakeServer, str]:
            server = FakeServer(*arguments, **settings)
            return server, stack.enter_context(server.running())

        yield run
