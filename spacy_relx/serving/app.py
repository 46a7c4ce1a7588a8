"""The FastAPI application: routes, and what happens when it starts and stops."""

# No `from __future__ import annotations`: FastAPI reads the annotations of functions that are made in a function.

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from spacy.language import Language

import spacy_relx
from spacy_relx.serving import problems
from spacy_relx.serving.answering import Answering
from spacy_relx.serving.asgi import BodyLimit
from spacy_relx.serving.batching import MicroBatcher
from spacy_relx.serving.limits import Limits
from spacy_relx.serving.messages import Answer, GivenDocument, Health, Problem, request_model
from spacy_relx.serving.metrics import MEDIA_TYPE, Measured, Metrics
from spacy_relx.shim import engine_shim

_DESCRIPTION = (
    "Typed, scored relations between the entities of texts. Concurrent requests are answered together. Errors are "
    "problem details (RFC 9457). Offsets of characters count Unicode code points, and ends are exclusive."
)


def _refusals(**what: str) -> dict[int | str, dict[str, Any]]:
    content = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status[1:]: {"description": text, "content": content} for status, text in what.items()}


def build(nlp: Language, limits: Limits | None, *, pool: bool) -> FastAPI:
    """Make the application; see `spacy_relx.serving.create_app`."""
    limits = limits or Limits()
    answering = Answering(nlp, pool=pool)
    shim = engine_shim(answering.component.model)
    # The pipeline belongs to the batcher's thread: only the model itself may be used by several.
    batcher: MicroBatcher[GivenDocument, dict[str, Any]] = MicroBatcher(
        answering,
        max_batch=limits.max_batch,
        max_wait=limits.max_wait_ms / 1000,
        max_waiting=limits.max_waiting,
        observe=lambda n_documents, seconds: metrics.batch(n_documents, seconds),
    )
    metrics = Metrics(lambda: getattr(shim.engine, "work", None) if shim.is_loaded else None, lambda: batcher.n_waiting)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(answering.component.load)
        batcher.start()
        yield
        await asyncio.to_thread(batcher.close)

    app = FastAPI(
        title="spacy-relx",
        version=spacy_relx.__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        # Their pages load scripts from elsewhere; the description itself is at /openapi.json.
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(BodyLimit, max_bytes=limits.max_body_bytes, max_seconds=limits.max_body_seconds)
    app.add_middleware(Measured, metrics=metrics)
    problems.install(app)
    request = request_model(limits)

    @app.post(
        "/relations",
        summary="Find the relations in some texts",
        response_model=Answer,
        responses=_refusals(
            _400="The body cannot be read.",
            _408="The body came too slowly.",
            _413="The body is too long.",
            _422="The body is not what is expected.",
            _500="The service failed.",
            _502="The server that computes the model, where there is one, gave no usable answer.",
            _503="There is no room for more documents; Retry-After says for how many seconds.",
        ),
    )
    async def relations(body: request) -> Response:  # type: ignore[valid-type]
        rows = await asyncio.wrap_future(batcher.submit(body.documents))  # type: ignore[attr-defined]
        metrics.answered(rows)
        return JSONResponse({"documents": rows})

    def health() -> Health:
        return Health(
            live=True, ready=batcher.is_open, waiting_documents=batcher.n_waiting, version=spacy_relx.__version__
        )

    @app.get("/health", summary="Whether the service lives")
    async def live() -> Health:
        return health()

    @app.get(
        "/health/ready",
        summary="Whether the service takes requests",
        response_model=Health,
        responses={503: {"model": Health, "description": "It does not."}},
    )
    async def ready() -> Response:
        found = health()
        return JSONResponse(found.model_dump(), 200 if found.ready else 503)

    @app.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def read_metrics() -> Response:
        return Response(metrics.text(), media_type=MEDIA_TYPE)

    _describe_problems(app)
    return app


def _describe_problems(app: FastAPI) -> None:
    """Put the form of errors into the OpenAPI description, in place of FastAPI's own."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schemas = describe()["components"]["schemas"]
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            schemas["Problem"] = Problem.model_json_schema()
        return describe()

    app.openapi = openapi  # type: ignore[method-assign]
