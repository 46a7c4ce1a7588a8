"""Keeps transformers from drawing progress bars and printing advice while this package loads a model.

Whatever is changed is put back: a program that wants the bars for its own models keeps them.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bars and its messages below the level of errors, for the block only."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    # With HF_HUB_DISABLE_PROGRESS_BARS set, the user has decided; switching would only bring a warning.
    switch = "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ and logging.is_progress_bar_enabled()
    if switch:
        logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with _no_gguf_bar():
            yield
    finally:
        logging.set_verbosity(verbosity)
        if switch:
            logging.enable_progress_bar()


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
