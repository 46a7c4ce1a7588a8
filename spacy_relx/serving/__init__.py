"""A pipeline behind HTTP: texts in, entities and relations out. Needs the extra `serve`.

`create_app` makes the application; the command is `python -m spacy relx serve`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from spacy_relx.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI
    from spacy.language import Language

    from spacy_relx.serving.limits import Limits

__all__ = ["create_app", "run"]


def create_app(nlp: Language, limits: Limits | None = None, *, pool: bool = True) -> FastAPI:
    """Make the application, for an ASGI server of your own; one process has one model, so give it one worker.

    Args:
        nlp: A pipeline with the component `llama_relation_extractor`.
        limits: Bounds of requests, batches and the queue; None: the defaults.
        pool: Whether documents share packs on a processor, too. A score may then differ, in the digits that the number
            format rounds away, from that of the document alone. The model block's `deterministic` wins over it.

    Raises:
        ConfigError: If an extra is missing, or the pipeline has no relation extractor.
    """
    with _extra():
        from spacy_relx.serving.app import build
    return build(nlp, limits, pool=pool)


def run(app: FastAPI, *, host: str = "127.0.0.1", port: int = 8000, quiet: bool = False) -> None:
    """Serve an application until SIGTERM or SIGINT; what has been accepted is answered first.

    Args:
        app: What `create_app` made.
        host: The address to listen at.
        port: The port; 0 takes a free one.
        quiet: Whether only warnings and errors are logged.

    Raises:
        ModelError: If the model cannot be loaded.
    """
    with _extra():
        import uvicorn
    level = "warning" if quiet else "info"
    uvicorn.run(app, host=host, port=port, log_level=level, access_log=not quiet, server_header=False)


@contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("spacy_relx"):
            raise
        raise ConfigError(f"Serving needs {error.name}. Install it with `pip install 'spacy-relx[serve]'`.") from error
