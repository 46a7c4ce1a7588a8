"""What stands before the application: the limit of a body, and the names of ASGI's parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spacy_relx.serving.problems import problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class BodyLimit:
    """Reads a request's body before the application does, and refuses one that is too long with 413.

    Args:
        app: The application.
        max_bytes: Most bytes.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        body, more = bytearray(), not declared.isdigit() or int(declared) <= self.max_bytes
        too_long = not more
        while more:
            message = await receive()
            if message["type"] != "http.request":  # the client has gone
                return
            body += message.get("body", b"")
            too_long = len(body) > self.max_bytes
            more = message.get("more_body", False) and not too_long
        if too_long:
            refusal = problem(
                413,
                f"The body has more than {self.max_bytes} bytes. Send fewer or shorter documents a request.",
                headers={"Connection": "close"},  # the rest of the body is not read
            )
            await refusal(scope, receive, send)
            return
        is_read = False

        async def replay() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self.app(scope, replay, send)
