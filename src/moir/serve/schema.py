"""What the OpenAPI description says of requests and answers."""

from typing import Any

from pydantic import BaseModel, Field

from moir.base.names import DEGREES, TASKS, TYPES
from moir.serve.options import FORMAT_WORDS

ESTIMATE = [
    {"type": "rain", "degree": "heavy", "probability": 0.9871},
    {"type": "noise", "degree": "light", "probability": 0.2113},
]


class Failure(BaseModel):
    """Every error."""

    error: str = Field(examples=["notes.txt is not a picture that moir reads (JPEG, PNG, WEBP, TIFF, BMP, GIF)"])


class Finding(BaseModel):
    """One kind of damage that was looked for."""

    type: str = Field(description=", ".join(TYPES))
    degree: str = Field(description=f"{', '.join(DEGREES)}: how bad it is, if it is there")
    probability: float = Field(ge=0, le=1, description="that it is there")


class Inspection(BaseModel):
    """What is wrong with a picture."""

    input: str = Field(examples=["street.jpg"])
    width: int = Field(examples=[1024])
    height: int = Field(examples=[768])
    model: str = Field(examples=["compact"])
    expert: str = Field(examples=["compact"], description="which expert would restore it")
    granularity: str = Field(examples=["all"])
    estimate: list[Finding] = Field(description="the most probable first", examples=[ESTIMATE])
    uncertainty: float | None = Field(description="0 (sure) to 1 (no idea)", examples=[0.21])
    seconds: float = Field(examples=[0.05])


class Model(BaseModel):
    """A model that requests may name."""

    name: str = Field(examples=["compact"])
    default: bool
    loaded: bool
    network: str | None = Field(None, examples=["compact"])
    parameters: int | None = Field(None, examples=[3600000])
    licence: str | None = None
    description: str | None = None
    device: str | None = Field(None, examples=["cpu"])
    precision: str | None = Field(None, examples=["bf16"])
    takes_task: bool | None = Field(None, description="whether it can be told what to remove; null: not loaded yet")


class Limits(BaseModel):
    """What the server refuses beyond."""

    bytes: int
    pixels: int
    seconds: float


class Offer(BaseModel):
    """What the server can do."""

    models: list[Model]
    tasks: list[str] = Field(examples=[list(TASKS)])
    types: list[str]
    degrees: list[str]
    formats: list[str]
    limits: Limits


REPORT_EXAMPLE = {
    "input": "street.jpg",
    "output": "street_restored.jpg",
    "width": 1024,
    "height": 768,
    "model": "compact",
    "expert": "compact",
    "granularity": "all",
    "estimate": ESTIMATE,
    "uncertainty": 0.21,
    "strength": 1.0,
    "tiles": 1,
    "seconds": 1.4,
}

_OPTIONS: dict[str, dict[str, Any]] = {
    "model": {"type": "string", "description": "a name of /v1/models; default: the server's default"},
    "task": {
        "type": "string",
        "example": "derain",
        "description": f"remove only this: {', '.join(TASKS)}; several with commas; default: whatever is found",
    },
    "strength": {"type": "number", "minimum": 0, "maximum": 1, "default": 1, "description": "how much of the change"},
    "format": {"type": "string", "enum": list(FORMAT_WORDS), "description": "default: as it came, or PNG"},
    "quality": {"type": "integer", "minimum": 1, "maximum": 100, "description": "of JPEG, WebP and AVIF"},
    "with": {"type": "string", "example": "rain=heavy,noise=25", "description": "the damage, as in moir degrade"},
    "seed": {"type": "integer", "minimum": 0, "default": 0, "description": "the same seed gives the same damage"},
}


def body(*options: str, required: tuple[str, ...] = ()) -> dict[str, Any]:
    """The ``requestBody`` of a multipart form with a file and these options."""
    properties = {"file": {"type": "string", "format": "binary", "description": "the picture file"}}
    properties |= {name: _OPTIONS[name] for name in options}
    form = {"type": "object", "required": ["file", *required], "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` for these statuses."""
    meaning = {
        401: "the token is missing or wrong",
        408: "the upload took too long",
        413: "more bytes or pixels than the limit",
        422: "no picture, a damaged one, or an option that is not possible",
        429: "the queue is full; see Retry-After",
        503: "going down, or out of memory; see Retry-After",
        504: "not done within the time limit",
    }
    return {status: {"model": Failure, "description": meaning[status]} for status in statuses}


def picture(description: str, report: dict[str, Any] | None = None) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of an answer that is a picture, with its report in a header."""
    answer: dict[str, Any] = {
        "description": description,
        "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
    }
    if report is not None:
        answer["headers"] = {
            "X-Moir-Report": {
                "description": "the account, as JSON",
                "schema": {"type": "string"},
                "example": report,
            }
        }
    return {200: answer}
