"""What goes over the wire; the OpenAPI description is made of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

    from spacy_relx.serving.limits import Limits


@dataclass(frozen=True)
class _StopAtFirst:
    """Of the items of a list, only the first that is wrong is told; a body of some megabytes can have a million.

    Does what pydantic's `FailFast` does, which cannot be part of a union.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return {**handler(source), "fail_fast": True}


_STOP = _StopAtFirst()

#: Fields of an object, known or not. Each unknown one is told, so there may not be any number of them.
_MOST_FIELDS = 20


class _Given(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _check_size(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > _MOST_FIELDS:
            raise ValueError(f"{len(value)} fields, where {', '.join(cls.model_fields)} are known")
        return value


def _whole(value: Any) -> Any:
    """To JSON, 5.0 is the same number as 5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_WHOLE = BeforeValidator(_whole)

Id = Annotated[str, Field(max_length=1000)] | Annotated[int, Field(ge=-(2**53), le=2**53), _WHOLE] | None


class GivenEntity(_Given):
    """An entity that the client knows, by its place in the text; ends are exclusive."""

    start_char: Annotated[int, Field(ge=0, description="First character, counted in Unicode code points."), _WHOLE]
    end_char: Annotated[int, Field(ge=1, description="One past the last character."), _WHOLE]
    label: Annotated[str, Field(min_length=1, max_length=200, description="The entity's type.", examples=["PERSON"])]


class GivenDocument(_Given):
    """A text, with or without its entities."""

    text: str
    id: Annotated[Id, Field(description="Comes back with the document.")] = None
    entities: Annotated[
        Annotated[list[GivenEntity], _STOP] | None,
        Field(
            description="The entities: made of whole tokens, and apart from each other. Null: the pipeline finds some."
        ),
    ] = None


class Mention(BaseModel):
    """A stretch of the text; ends are exclusive, characters are Unicode code points."""

    start: Annotated[int, Field(description="First token.")]
    end: Annotated[int, Field(description="One past the last token.")]
    start_char: int
    end_char: int
    label: Annotated[str, Field(description="The entity's type.")]
    text: str
    kb_id: Annotated[str | None, Field(description="The entity's knowledge-base id, if it has one.")] = None


class FoundRelation(BaseModel):
    """A directed relation between two mentions."""

    head: Mention
    tail: Mention
    label: str
    score: Annotated[float, Field(ge=0, le=1, description="Probability of the label among those asked for.")]
    inverse_label: Annotated[str | None, Field(description="The same fact seen from the tail, if it has a name.")] = (
        None
    )


class AnsweredDocument(BaseModel):
    """What was found in one text."""

    id: Id
    entities: list[Mention]
    relations: list[FoundRelation]
    error: Annotated[str | None, Field(description="Why this document has no answer; the others have theirs.")]


class Answer(BaseModel):
    """The documents, in the order of the request."""

    documents: list[AnsweredDocument]


class Health(BaseModel):
    """Whether the service lives, and whether it takes requests."""

    live: bool
    ready: bool
    waiting_documents: int
    version: str


class Problem(BaseModel):
    """An error as in RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] | None = None


def request_model(limits: Limits) -> type[BaseModel]:
    """The body of a request, with the limits in it, so that the OpenAPI description has them."""
    document = create_model(
        "Document", __base__=GivenDocument, text=(Annotated[str, Field(max_length=limits.max_chars)], ...)
    )
    documents: Any = Annotated[list[document], Field(min_length=1, max_length=limits.max_documents), _STOP]  # type: ignore[valid-type]
    return create_model("Request", __base__=_Given, documents=(documents, ...))
