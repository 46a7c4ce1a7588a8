"""What stands before the application: the limits of a body, and the names of ASGI's parts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from spacy_relx.serving.problems import problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class _TooLongError(Exception):
    """A body has more bytes than it may have."""


class BodyLimit:
    """Reads a request's body before the application does, and refuses one that is too long (413) or too slow (408).

    Args:
        app: The application.
        max_bytes: Most bytes.
        max_seconds: Most seconds that a body may take. Without, a client that stops in the middle would keep the
            service from ending.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_seconds: float) -> None:
        self.app, self.max_bytes, self.max_seconds = app, max_bytes, max_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self.max_seconds):
                body = await self._read(scope, receive)
        except _TooLongError:
            detail = f"The body has more than {self.max_bytes} bytes. Send fewer or shorter documents a request."
            await _refuse(413, detail, scope, receive, send)
            return
        except TimeoutError:
            detail = (
                f"The body did not come within {self.max_seconds:g} seconds. Send it at once, or in smaller requests."
            )
            await _refuse(408, detail, scope, receive, send)
            return
        if body is None:
            return
        is_read = False

        async def replay() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the body, or None if the client has gone."""
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.max_bytes:
            raise _TooLongError
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return None
            body += message.get("body", b"")
            if len(body) > self.max_bytes:
                raise _TooLongError
            more = message.get("more_body", False)
        return bytes(body)


async def _refuse(status: int, detail: str, scope: Scope, receive: Receive, send: Send) -> None:
    # The rest of the body is not read, so nothing can follow on this connection.
    await problem(status, detail, headers={"Connection": "close"})(scope, receive, send)
