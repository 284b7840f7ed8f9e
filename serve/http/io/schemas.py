"""The types of what our own routes take and answer: requests are validated by them, OpenAPI is made from all.

Requests are pydantic models. Answers are typed dictionaries; their numbers are arrays of float32, or base64 text.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    RootModel,
    Tag,
    WithJsonSchema,
)
from typing_extensions import TypeAliasType, TypedDict

from index.answers.filters import parse_filter, parse_where
from serve.http.io.validation import Strict, parse_json
from vssl.errors import InputError

MAX_K = 1000
MAX_ID = 1024
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFElEQVR4nGOM6rFhwAaYsIoOWgkA53IBMpXXa2gAAAAASUVORK5CYII="
)


def _whole(value: Any) -> Any:  # 5.0 is 5, as JSON has it
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _wholes(value: Any) -> Any:
    has_float = isinstance(value, list) and float in set(map(type, value))
    return [_whole(one) for one in value] if has_float else value


def _object(value: Any) -> Any:
    """In a query or a form, an object is written as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value.encode())
    except ValueError as error:
        raise ValueError(f"expected a JSON object, {error}") from None


def _condition(value: Any) -> Any:
    """Read a filter as the command line does, and check its form."""
    try:
        if isinstance(value, str):
            return parse_where(value)
        parse_filter(value)
    except InputError as error:
        raise ValueError(str(error).removeprefix("where: ")) from None
    return value


# What has a name here can be bounded in the document by what a server serves (`openapi.served_bounds`).
ModelName = TypeAliasType("ModelName", str)
Version = TypeAliasType("Version", str)
# The first wrong element of a long list says enough, and the others would cost what they are many.
Vector = TypeAliasType("Vector", Annotated[list[float], Field(fail_fast=True)])
PositiveVector = TypeAliasType(
    "PositiveVector", Annotated[list[Annotated[float, Field(gt=0)]], Field(fail_fast=True)]
)
Vectors = TypeAliasType("Vectors", Annotated[list[Vector], Field(fail_fast=True)])
PositiveVectors = TypeAliasType("PositiveVectors", Annotated[list[PositiveVector], Field(fail_fast=True)])
Whole, Wholes = BeforeValidator(_whole), BeforeValidator(_wholes)
Count = Annotated[int, Field(ge=1, le=MAX_K), Whole]
Share = Annotated[float, Field(gt=0, lt=1)]
Encoding = Literal["float", "base64"]
Scalar = str | int | float | bool | None
Metadata = Annotated[dict[str, Scalar], BeforeValidator(_object)]
Where = Annotated[
    dict[str, Any],
    BeforeValidator(_condition),
    Field(examples=[{"label": ["cat", "dog"], "year": {">": 2019}}]),
]
ItemId = Annotated[str, Field(min_length=1, max_length=MAX_ID)]
Numbers = TypeAliasType(
    "Numbers",
    Annotated[
        Any,
        WithJsonSchema(
            {
                "description": "D numbers, or with encoding_format=base64 their little-endian float32",
                "oneOf": [{"type": "array", "items": {"type": "number"}}, {"type": "string"}],
            }
        ),
    ],
)


Number = Annotated[Any, WithJsonSchema({"type": "number"})]  # a float32, printed as one


class ImageItem(Strict):
    """An image: its bytes as base64 or a data URI."""

    base64: str | None = Field(None, json_schema_extra={"format": "byte"})
    url: str | None = Field(None, description="A data URI; no other URL is fetched")
    name: str | None = Field(None, description="Repeated in its answer")


def _one_source(item: ImageItem) -> ImageItem:
    if (item.base64 is None) == (item.url is None):
        raise ValueError('expected {"base64": "..."} or {"url": "..."}, one of the two, and perhaps a "name"')
    return item


Images = TypeAliasType(
    "Images",
    Annotated[
        list[Annotated[ImageItem, AfterValidator(_one_source)]],
        Field(min_length=1, fail_fast=True, examples=[[{"base64": PIXEL, "name": "a"}]]),
    ],
)


class NoOptions(Strict):
    """A route without parameters."""


class ModelOptions(Strict):
    """Which of several models is meant."""

    model: ModelName | None = Field(None, description="One of several models; the first when absent")


class EncodingOptions(Strict):
    """How numbers are written in JSON."""

    encoding_format: Encoding | None = Field(None, description="float, or base64 of little-endian float32")


class EmbedOptions(ModelOptions, EncodingOptions):
    """How /embed answers."""


class WithImages(Strict):
    """A JSON body that carries images."""

    images: Images


class EmbedRequest(WithImages, EmbedOptions):
    """Images to embed."""


class SearchOptions(ModelOptions):
    """How to search."""

    k: Count | None = Field(None, description="Neighbours of each query; 10 when absent")
    distance: str | None = Field(None, description="The gallery's own when absent")
    max_uncertainty: float | None = Field(None, description="Only neighbours at most this uncertain")
    where: Where | None = Field(None, description='Only neighbours that fit: {"label": "cat"}, or label=cat')
    max_risk: Share | None = Field(
        None, description="Mark answers that may be wrong more often; the server's own"
    )


class ImageSearch(WithImages, SearchOptions):
    """Images to search with."""


class GaussianSearch(SearchOptions):
    """Gaussians to search with: the mean and variance (D,) of earlier answers, or several of each."""

    mean: Vector | Vectors
    variance: PositiveVector | PositiveVectors
    uncertainty: list[Annotated[float, Field(ge=0, le=1)]] | None = Field(
        None,
        fail_fast=True,
        description="Of each row, as /embed answered it; wanted where the model predicts it",
    )
    model_id: str | None = Field(None, description="Of the model that made them; another one's are refused")
    exclude: list[ItemId] | None = Field(
        None, description="Items not to find: examples, usually", max_length=100
    )


def _search_kind(body: Any) -> str:
    has_images = "images" in body if isinstance(body, dict) else isinstance(body, ImageSearch)
    return "<images>" if has_images else "<gaussians>"


class SearchRequest(
    RootModel[
        Annotated[
            Annotated[ImageSearch, Tag("<images>")] | Annotated[GaussianSearch, Tag("<gaussians>")],
            Discriminator(_search_kind),
        ]
    ]
):
    """Images or Gaussians to search with."""


class PutOptions(ModelOptions):
    """What is stored with an item."""

    label: str | None = Field(None, description="The item's label")
    metadata: Metadata | None = Field(
        None, description="Names and values to filter by", examples=[{"year": 2024, "colour": "red"}]
    )


class PutRequest(WithImages, PutOptions):
    """One image to add or to replace an item with."""


class ItemErrorFields(TypedDict):
    """What went wrong with one image."""

    code: str
    message: str


class ErrorFields(ItemErrorFields):
    """What went wrong with a request; `param` names the parameter where it was one."""

    type: str
    param: str | None


class Error(TypedDict):
    """The answer of every request that fails."""

    error: ErrorFields


class FailedImage(TypedDict):
    """An image that was not embedded, under its name."""

    name: NotRequired[str]
    query: NotRequired[str]
    error: ItemErrorFields


class EmbeddedItem(TypedDict):
    """One image's Gaussian."""

    name: NotRequired[str]
    mean: Numbers
    variance: Numbers
    uncertainty: Number


class EmbedAnswer(TypedDict):
    """One result an image, in order."""

    model_id: str
    dim: int
    results: list[EmbeddedItem | FailedImage]


class NeighbourItem(TypedDict):
    """A stored image; a smaller distance is nearer."""

    id: str
    label: str | None
    distance: float
    variance_score: float | None
    match_probability: float | None
    uncertainty: float | None
    metadata: dict[str, Scalar]


class FoundItem(TypedDict):
    """What one query found; `risk` is a rank in 0..1; `abstain`, with --max-risk, says whether not to trust it."""

    query: NotRequired[str]
    uncertainty: float
    uncertainty_percentile: float | None
    risk: float | None
    abstain: NotRequired[bool]
    neighbours: list[NeighbourItem]


class SearchAnswer(TypedDict):
    """One result a query, in order."""

    model_id: str
    k: int
    results: list[FoundItem | FailedImage]


class Item(TypedDict):
    """A stored image."""

    id: str
    label: str | None
    model_id: str
    mean: Numbers
    variance: Numbers | None
    uncertainty: float | None
    metadata: dict[str, Scalar]
