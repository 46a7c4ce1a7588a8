"""A server on loopback that speaks the APIs of vLLM, llama.cpp and others, and can be told to fail.

What it knows of language is a function of the prompt's ids, so that everybody can tell what it has to answer.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

VOCABULARY = 49152
OWNERS = {"vllm": "vllm", "llama_cpp": "llamacpp"}


def random_log_probs(ids: tuple[int, ...]) -> np.ndarray:
    """Log-probabilities that depend on every token of a prompt. Shape: (vocabulary,)."""
    logits = np.random.default_rng(np.asarray(ids, dtype=np.uint32)).normal(scale=3.0, size=VOCABULARY)
    return logits - np.logaddexp.reduce(logits)


@dataclass(frozen=True)
class Fault:
    """One way in which an answer goes wrong: "status", "slow", "drip", "drop", "cut", "garbage", "wrong", "empty",
    "bare" (without log-probabilities) or "raw" (the `content`)."""

    kind: str
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "out of order"
    seconds: float = 0.0
    content: bytes = b""


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    n_under_way: int
    fault: Fault | None = None


class FakeServer:
    """A server.

    Args:
        api: Which API it speaks.
        log_probs: What it knows.
        fault: (number of the request among those that ask the model, its body) -> what goes wrong, if anything.
        reports_ids: Whether it takes `logprob_token_ids`, as newer versions of vLLM do.
        processed: Whether log-probabilities are those among the allowed tokens.
        key: The key that it wants.
        models: Names of its models.
        stop: The token that ends an answer.
        choose: (messages, allowed answers) -> probabilities, for the chat endpoint.
        tokenize: Text -> ids, or None: it cannot be asked.
        seconds: How long an answer takes.
    """

    def __init__(
        self,
        api: str = "vllm",
        log_probs: Callable[[tuple[int, ...]], np.ndarray] = random_log_probs,
        *,
        fault: Callable[[int, dict[str, Any]], Fault | None] = lambda number, body: None,
        reports_ids: bool = True,
        processed: bool = False,
        key: str | None = None,
        models: tuple[str, ...] = ("served",),
        stop: int = 2,
        choose: Callable[[list[dict[str, str]], list[str]], list[float]] | None = None,
        tokenize: Callable[[str], list[int]] | None = None,
        version: str = "0.12.0",
        seconds: float = 0.0,
    ) -> None:
        self.api = api
        self.log_probs = log_probs
        self.fault = fault
        self.reports_ids = reports_ids
        self.processed = processed
        self.key = key
        self.models = models
        self.stop = stop
        self.choose = choose or (lambda messages, choices: [1 / len(choices)] * len(choices))
        self.tokenize = tokenize
        self.version = version
        self.seconds = seconds
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        self._under_way = 0
        self._closing = threading.Event()

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve; gives the base address."""
        http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        http.daemon_threads = True
        http.handle_error = lambda request, address: None  # clients that went away
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}/v1"
        finally:
            self._closing.set()
            http.shutdown()
            http.server_close()
            thread.join()

    @property
    def closed(self) -> bool:
        return self._closing.is_set()

    @property
    def asked(self) -> list[Request]:
        """The requests that asked the model."""
        return [request for request in self.requests if request.path.endswith("completions")]

    @property
    def answered(self) -> list[Request]:
        """Those that were answered as they should."""
        return [request for request in self.asked if request.fault is None]

    def take(self, method: str, path: str, headers: dict[str, str], body: dict[str, Any]) -> Request:
        with self.lock:
            self._under_way += 1
            request = Request(method, path, headers, body, self._under_way)
            if path.endswith("completions"):
                request.fault = self.fault(len(self.asked), body)
            self.requests.append(request)
        return request

    def done(self) -> None:
        with self.lock:
            self._under_way -= 1

    def wait(self, seconds: float) -> None:
        self._closing.wait(seconds)

    def answer(self, request: Request) -> tuple[int, Any]:
        """Status and content of the right answer."""
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return 401, {"error": {"message": f"wrong key: {request.headers.get('authorization')}"}}
        what = request.path.removeprefix("/v1").removeprefix("/")
        if what == "models":
            owner = OWNERS.get(self.api, "somebody")
            return 200, {"data": [{"id": name, "owned_by": owner, "created": time.time()} for name in self.models]}
        if what == "info" and self.api == "tgi":
            return 200, {"model_id": self.models[0], "max_total_tokens": 2048}
        if what == "version" and self.api == "vllm":
            return 200, {"version": self.version}
        if what == "tokenize" and self.tokenize is not None:
            return 200, {"tokens": self.tokenize(request.body.get("prompt", request.body.get("content")))}
        if what == "completions" and self.api in OWNERS:
            return 200, self._complete(request.body)
        if what == "chat/completions":
            return 200, self._chat(request.body)
        return 404, {"error": {"message": "nothing there"}}

    def wrong(self, body: dict[str, Any]) -> Any:
        """An answer that was not allowed."""
        if "messages" in body:
            return _message("nonsense", [_piece("nonsense", -0.1, {})])
        # Nothing allows this token.
        return self._one(VOCABULARY - 1, -0.1, {VOCABULARY - 1: -0.1}, "post_sampling_probs" in body)

    def _complete(self, body: dict[str, Any]) -> Any:
        ids = tuple(body["prompt"])
        if body["max_tokens"] > 1:
            return self._write(ids, body)
        values = self.log_probs(ids)
        if self.api == "llama_cpp":
            biased = values.copy()
            for token, bias in body["logit_bias"]:
                biased[token] += bias
            chosen = int(biased.argmax())
            if body["post_sampling_probs"]:
                values = biased - np.logaddexp.reduce(biased)
            top = np.argsort(-values, kind="stable")[: body["n_probs"]]
            return self._one(chosen, values[chosen], {int(t): values[t] for t in top}, body["post_sampling_probs"])
        allowed = np.asarray(body["allowed_token_ids"])
        if self.processed:
            values = np.full_like(values, -np.inf)
            values[allowed] = self.log_probs(ids)[allowed]
            values -= np.logaddexp.reduce(values)
        chosen = int(allowed[values[allowed].argmax()])
        top = np.argsort(-values, kind="stable")[: body["logprobs"]]
        if self.reports_ids:
            top = body["logprob_token_ids"]
        return self._one(chosen, values[chosen], {int(t): max(values[t], -9999.0) for t in top}, False)

    def _one(self, chosen: int, value: float, top: dict[int, float], after_sampling: bool) -> Any:
        return _completion(self.api, [(chosen, value, top)], "length", after_sampling)

    def _write(self, ids: tuple[int, ...], body: dict[str, Any]) -> Any:
        written: list[tuple[int, float, dict[int, float]]] = []
        while len(written) < body["max_tokens"]:
            values = self.log_probs((*ids, *(token for token, _, _ in written)))
            token = int(values.argmax())
            written.append((token, float(values[token]), {token: float(values[token])}))
            if token == self.stop:
                return _completion(self.api, written, "stop", False)
        return _completion(self.api, written, "length", False)

    def _chat(self, body: dict[str, Any]) -> Any:
        choices = _choices(body)
        if choices is None:
            return _message("works_for", [_piece("works", -0.1, {}), _piece("_for", -0.2, {})])
        probs = self.choose(body["messages"], choices)
        best = max(range(len(choices)), key=lambda i: (probs[i], -i))
        top = {choice: float(np.log(p)) for choice, p in zip(choices, probs) if p > 0}
        text = choices[best]
        pieces = [_piece(text, top[text], top)]
        if "json_schema" in str(body.get("response_format")):
            pieces = [_piece('{"relation": "', -0.5, {}), *pieces, _piece('"}', 0.0, {})]
            text = f'{{"relation": "{text}"}}'
        return _message(text, pieces)


def _completion(
    api: str, tokens: list[tuple[int, float, dict[int, float]]], reason: str, after_sampling: bool
) -> dict[str, Any]:
    logprobs: dict[str, Any]
    if api == "vllm":
        logprobs = {
            "tokens": [f"token_id:{token}" for token, _, _ in tokens],
            "token_logprobs": [float(value) for _, value, _ in tokens],
            "top_logprobs": [{f"token_id:{t}": float(v) for t, v in top.items()} for _, _, top in tokens],
        }
    else:

        def value_of(log_prob: float) -> float:
            return float(np.exp(log_prob)) if after_sampling else float(log_prob)

        name = "prob" if after_sampling else "logprob"
        logprobs = {
            "content": [
                {
                    "id": token,
                    name: value_of(value),
                    f"top_{name}s": [{"id": t, name: value_of(v)} for t, v in top.items()],
                }
                for token, value, top in tokens
            ]
        }
    return {"choices": [{"text": "", "logprobs": logprobs, "finish_reason": reason}]}


def _choices(body: dict[str, Any]) -> list[str] | None:
    """The answers that a request allows."""
    form = body.get("response_format", {})
    if "json_schema" in form:
        choices: list[str] = form["json_schema"]["schema"]["properties"]["relation"]["enum"]
        return choices
    if form.get("type") == "regex":
        return [text.replace("\\", "") for text in form["value"].strip("()").split("|")]
    if "grammar" in body:
        return [json.loads(text) for text in body["grammar"].removeprefix("root ::= ").split(" | ")]
    if "structured_outputs" in body:
        return list(body["structured_outputs"]["choice"])
    return body.get("guided_choice")


def _piece(token: str, value: float, top: Mapping[str, float]) -> dict[str, Any]:
    return {"token": token, "logprob": value, "top_logprobs": [{"token": t, "logprob": v} for t, v in top.items()]}


def _message(text: str, pieces: list[dict[str, Any]]) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": text}, "logprobs": {"content": pieces}}
    return {"choices": [{**choice, "finish_reason": "stop"}]}


def _handler(server: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve({})

        def do_POST(self) -> None:
            self._serve(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def _serve(self, body: dict[str, Any]) -> None:
            if server.closed:  # a connection that was kept
                self.close_connection = True
                return
            request = server.take(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            try:
                if request.fault is None:
                    server.wait(server.seconds)
                    status, content = server.answer(request)
                    self._send(status, json.dumps(content).encode())
                else:
                    self._fail(request.fault, request)
            finally:
                server.done()

        def _fail(self, fault: Fault, request: Request) -> None:
            right = json.dumps(server.answer(request)[1]).encode()
            if fault.kind == "raw":
                self._send(fault.status, fault.content, fault.headers)
            elif fault.kind == "status":
                self._send(fault.status, json.dumps({"error": {"message": fault.message}}).encode(), fault.headers)
            elif fault.kind == "slow":
                server.wait(fault.seconds)
                self.close_connection = True
            elif fault.kind == "drip":
                self._start(200, len(right))
                for i in range(0, len(right), 8):
                    self.wfile.write(right[i : i + 8])
                    self.wfile.flush()
                    server.wait(fault.seconds)
            elif fault.kind == "cut":
                self._start(200, len(right))
                self.wfile.write(right[: len(right) // 2])
                self.close_connection = True
            elif fault.kind == "drop":
                self.close_connection = True
            else:
                contents = {
                    "garbage": b"<html>\xff busy</html>",
                    "wrong": json.dumps(server.wrong(request.body)).encode(),
                    "empty": b'{"choices": []}',
                    "bare": b'{"choices": [{"message": {"content": "works_for"}, "finish_reason": "stop"}]}',
                }
                self._send(200, contents[fault.kind])

        def _start(self, status: int, size: int, headers: Mapping[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(size))
            self.end_headers()

        def _send(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
            self._start(status, len(content), headers)
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
