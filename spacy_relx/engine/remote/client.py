"""Requests to a server: pooled connections, time limits, retries, and errors that say what to do.

Owns what travels; what is asked and what an answer means is the dialects' business. The key is read from the
environment for every request, and is in no attribute, message or log record.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
import warnings
import weakref
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from spacy_relx._json import parse_json
from spacy_relx.engine.remote import words
from spacy_relx.errors import ConfigError, RelxWarning, ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx
    from tenacity import RetryCallState

    from spacy_relx.engine.remote.spec import RemoteSpec

#: Answers of a server that may be another one in a moment.
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})

#: Seconds of the first pause between attempts, at most, and of any.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0

#: Bytes of an answer; one has some kilobytes.
_MOST_BYTES = 16 * 2**20

#: How an answer may be packed. Others, and one inside another, can hold gigabytes in a piece of some kilobytes.
_PACKINGS = ("gzip", "deflate", "identity")

#: Clients that came with a fork. The parent uses their connections, so they are neither used nor closed here.
_INHERITED: list[Any] = []


class PassingError(Exception):
    """An attempt failed in a way that another may not.

    Args:
        reason: What happened.
        pause: Seconds that the server asks to wait, or None.
        unreachable: Whether there was no connection at all.
    """

    def __init__(self, reason: str, pause: float | None = None, *, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.pause = pause
        self.unreachable = unreachable


class Client:
    """Asks one server, from any thread.

    Args:
        spec: Where it is.

    Raises:
        ConfigError: If httpx or tenacity is not installed.
    """

    def __init__(self, spec: RemoteSpec) -> None:
        try:
            import httpx  # noqa: F401
            import tenacity  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                f"spacy-relx.OpenAICompatible.v1 needs {error.name}. Run `pip install 'spacy-relx[remote]'`."
            ) from error
        self.spec = spec
        self.n_attempts = 0
        self._lock = threading.Lock()
        self._pool: httpx.Client | None = None
        self._owner = 0
        self._not_before = 0.0  # on the monotonic clock; a server that is asked too much says when to come back
        if spec.api_key_env is not None and urlsplit(spec.base_url).scheme == "http" and not spec.is_local:
            warnings.warn(
                f"The key in {spec.api_key_env} is sent to {spec.base_url} unencrypted. Use https.",
                RelxWarning,
                stacklevel=2,
            )

    def find(self, url: str, body: Mapping[str, Any] | None = None) -> Any:
        """What is at an address that not every server has; None where this one has no answer, or none in JSON.

        Raises:
            ServerError: If the server cannot be reached, or refuses the key.
        """
        try:
            method = "GET" if body is None else "POST"
            return self._with_retries(lambda deadline: self._attempt(method, url, body, deadline))
        except ServerError as error:
            if error.for_all and not isinstance(error, _NothingThereError):
                raise
            return None

    def post(self, path: str, body: Mapping[str, Any], read: Callable[[Any], Any]) -> Any:
        """Send a request and read its answer; one that `read` does not understand is asked for again.

        Args:
            path: Below the base address.
            body: The request.
            read: Takes the answer apart; raises `PassingError` where it is none.

        Raises:
            ServerError: If there is no usable answer after all attempts, or no hope of one.
        """
        url = f"{self.spec.base_url.rstrip('/')}/{path}"
        body = {**self.spec.extra_body, **body}

        def ask(deadline: float) -> Any:
            answer = self._attempt("POST", url, body, deadline)
            try:
                return read(answer)
            except PassingError as error:  # it may quote the answer, and some servers repeat what they were sent
                raise PassingError(words.without_key(str(error), self._key())) from None

        return self._with_retries(ask)

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._pool is not None and self._owner == os.getpid():
                self._pool.close()
            self._pool = None

    def _with_retries(self, attempt: Callable[[float], Any]) -> Any:
        import tenacity

        spec = self.spec
        end = time.monotonic() + spec.total_timeout
        jitter = tenacity.wait_random_exponential(multiplier=_FIRST_PAUSE, max=_LONGEST_PAUSE)

        def pause(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.pause if isinstance(error, PassingError) else None
            return jitter(state) if asked is None else asked + jitter(state) / _LONGEST_PAUSE

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(PassingError),
            stop=tenacity.stop_after_attempt(spec.max_retries + 1) | tenacity.stop_before_delay(spec.total_timeout),
            wait=pause,
            reraise=True,
        )
        start = time.monotonic()
        n_attempts = 0

        def once() -> Any:
            nonlocal n_attempts
            wait = self._not_before - time.monotonic()
            if time.monotonic() + max(wait, 0) >= end:
                raise PassingError(f"it has asked for a pause of {wait:.0f} more seconds", wait)
            if wait > 0:
                time.sleep(wait)
            n_attempts += 1
            return attempt(min(time.monotonic() + spec.timeout, end))

        try:
            return retrying(once)
        except PassingError as error:
            seconds = time.monotonic() - start
            raise ServerError(
                f"The server at {spec.base_url} gave no usable answer in {n_attempts} attempts and {seconds:.1f} "
                f"seconds; the last time: {error}. {_ADVICE_UNREACHABLE if error.unreachable else _ADVICE_FAILING}",
                for_all=error.unreachable,
            ) from error

    def _attempt(self, method: str, url: str, body: Mapping[str, Any] | None, deadline: float) -> Any:
        """One request. Raises `PassingError` or `ServerError`."""
        import httpx

        with self._lock:
            self.n_attempts += 1
        seconds = max(deadline - time.monotonic(), 0.001)
        chunks, size = [], 0
        try:
            with self._connections().stream(
                method, url, json=body, headers=self._headers(), timeout=httpx.Timeout(seconds)
            ) as response:
                packing = response.headers.get("content-encoding", "identity")
                if packing.strip().lower() not in _PACKINGS:
                    raise PassingError(f"an answer packed as {self.shown(packing)!r}, which was not asked for")
                for chunk in response.iter_bytes():
                    chunks.append(chunk)
                    size += len(chunk)
                    if size > _MOST_BYTES:
                        raise PassingError(f"an answer of more than {_MOST_BYTES} bytes")
                    if time.monotonic() > deadline:  # a limit of httpx is for each piece, not for all of them
                        raise PassingError(f"no complete answer within {seconds:.1f} seconds")
        except httpx.TimeoutException as error:
            raise PassingError(f"no answer within {seconds:.1f} seconds ({type(error).__name__})") from error
        except httpx.TransportError as error:
            self._fail_if_tls(error)
            unreachable = isinstance(error, (httpx.ConnectError, httpx.UnsupportedProtocol))
            raise PassingError(self.shown(str(error) or type(error).__name__), unreachable=unreachable) from error
        except httpx.DecodingError as error:
            raise PassingError(f"an answer that cannot be unpacked: {error}") from error
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ServerError(
                f"Nothing can be sent to {url!r}: {error}. Expected an address such as 'http://localhost:8000/v1' for "
                "model.base_url.",
                for_all=True,
            ) from error
        return self._content(response, b"".join(chunks))

    def _content(self, response: httpx.Response, content: bytes) -> Any:
        status = response.status_code
        if status in _PASSING:
            pause = words.retry_after(response.headers.get("retry-after"))
            if pause is not None:
                self._not_before = max(self._not_before, time.monotonic() + pause)
            raise PassingError(f"status {status}: {self._message(content)}", pause)
        if status != 200:
            self._fail(response, content)
        try:
            return parse_json(content)
        except ValueError as error:
            raise PassingError(
                f"an answer that is no JSON: {self.shown(content.decode('utf8', 'replace'))!r}"
            ) from error

    def _fail(self, response: httpx.Response, content: bytes) -> NoReturn:
        """Raise the error for a status that will not change."""
        spec, status, said = self.spec, response.status_code, self._message(content)
        where = f"The server at {spec.base_url}"
        if status in (401, 403):
            name = spec.api_key_env
            advice = (
                "Put a key into an environment variable, and its name into model.api_key_env."
                if name is None
                else f"Expected one in the environment variable {name} that it accepts."
            )
            raise ServerError(f"{where} refuses the key ({status}: {said}). {advice}", for_all=True)
        if status == 404:
            raise _NothingThereError(
                f"{where} has no {response.request.url.path} or no model {spec.model!r} (404: {said}). Check "
                "model.base_url (most end in /v1) and model.model.",
                for_all=True,
            )
        if 300 <= status < 400:
            target = self.shown(response.headers.get("location", "nowhere").partition("?")[0])
            raise ServerError(
                f"{where} redirects to {target} ({status}). A redirect is not followed, for the key could go astray: "
                "set model.base_url to the right address.",
                for_all=True,
            )
        raise ServerError(
            f"{where} refuses a request ({status}: {said}). Where it names a field, it may not know it: check "
            f"model.api ({spec.api!r}), model.extra_body and the server's version. Where it names a length, shorten "
            "the text (the `window` of the candidates), the label list or the examples."
        )

    def _fail_if_tls(self, error: BaseException) -> None:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLError) or "CERTIFICATE_VERIFY_FAILED" in str(cause):
                raise ServerError(
                    f"No secure connection to {self.spec.base_url}: {cause}. Expected a certificate that this machine "
                    "trusts: set SSL_CERT_FILE to your authority's file. Where it says wrong version number, the "
                    "server speaks http.",
                    for_all=True,
                ) from error
            cause = cause.__cause__ or cause.__context__

    def _headers(self) -> dict[str, str]:
        name = self.spec.api_key_env
        headers = {"Accept-Encoding": "gzip, deflate"}
        if name is None:
            return headers
        key = self._key()
        if not key:
            raise ServerError(
                f"model.api_key_env is {name!r}, and there is no such environment variable, or nothing in it. Expected "
                "the server's key there.",
                for_all=True,
            )
        if not key.isascii() or not key.isprintable():
            raise ServerError(
                f"The key in {name} cannot be sent: it has characters that no header can hold.", for_all=True
            )
        return {**headers, "Authorization": f"Bearer {key}"}

    def _connections(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._pool is not None and self._owner != os.getpid():
                _INHERITED.append(self._pool)
                self._pool = None
            if self._pool is None:
                n = self.spec.max_concurrency
                self._pool = httpx.Client(
                    limits=httpx.Limits(max_connections=n, max_keepalive_connections=n), follow_redirects=False
                )
                self._owner = os.getpid()
                weakref.finalize(self, _close, self._pool, self._owner)
            return self._pool

    def shown(self, text: str) -> str:
        """Text from the server, fit to be shown."""
        return words.shown(text, self._key())

    def _message(self, content: bytes) -> str:
        return words.message_of(content, self._key())

    def _key(self) -> str:
        """The key, or "" where there is none."""
        return os.environ.get(self.spec.api_key_env or "", "").strip()


class _NothingThereError(ServerError):
    """The server has nothing at an address."""


_ADVICE_UNREACHABLE = "Start the server, or check model.base_url."
_ADVICE_FAILING = (
    "If it is overloaded, lower model.max_concurrency or raise model.timeout; the server's own log may say more."
)


def _close(pool: httpx.Client, owner: int) -> None:
    if os.getpid() == owner:
        pool.close()
