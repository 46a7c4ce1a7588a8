"""Keeps the libraries below from drawing progress bars, printing advice and fetching code while a model loads.

Whatever is changed is put back: a program that wants the bars for its own models keeps them.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bars and its messages below the level of errors, for the block only."""
    from transformers.utils import logging as messages

    verbosity = messages.get_verbosity()
    # With HF_HUB_DISABLE_PROGRESS_BARS set, the user has decided; switching would only bring a warning.
    switch = "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ and messages.is_progress_bar_enabled()
    if switch:
        messages.disable_progress_bar()
    messages.set_verbosity_error()
    try:
        with _no_gguf_bar():
            yield
    finally:
        messages.set_verbosity(verbosity)
        if switch:
            messages.enable_progress_bar()


@contextmanager
def _no_gguf_bar() -> Iterator[None]:
    """Switch off the one bar that transformers draws without asking its own setting (in its GGUF reader)."""
    try:
        from transformers import modeling_gguf_pytorch_utils as reader
    except ImportError:
        yield
        return
    shown: Any = getattr(reader, "tqdm", None)
    if shown is None:
        yield
        return

    def hidden(*args: Any, **kwargs: Any) -> Any:
        return shown(*args, **{**kwargs, "disable": True})

    reader.tqdm = hidden
    try:
        yield
    finally:
        reader.tqdm = shown


def import_bitsandbytes() -> bool:
    """Import bitsandbytes, where it is installed, in a way that leaves it to its own compiled code.

    On import it fetches and runs a compiled kernel from the Hub if the package `kernels` is there, and prints advice
    to install it if not. Neither is wanted: nothing runs here that was not installed. PEFT imports it too, so this
    comes before every import of PEFT.

    Returns:
        Whether it is installed.
    """
    log = logging.getLogger("bitsandbytes")
    level = log.level
    log.setLevel(logging.ERROR)
    hidden = "kernels" not in sys.modules
    if hidden:
        sys.modules["kernels"] = None  # type: ignore[assignment]  # makes its import fail
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        return False
    finally:
        log.setLevel(level)
        if hidden:
            del sys.modules["kernels"]
    return True
