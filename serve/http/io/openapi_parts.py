"""The building blocks of the OpenAPI document: operations, parameters, bodies, references."""

from __future__ import annotations

from typing import Any

from vssl.images.decode import MEDIA_TYPES

Json = dict[str, Any]

ERRORS = {
    "400": "Malformed: the message names the parameter",
    "401": "The API key is missing or not one of the server's",
    "404": "No such item or model, or the server has no gallery",
    "408": "The body did not arrive in time",
    "409": "The query is of another model",
    "413": "Too many bytes or too many images",
    "415": "Not an image of a supported type",
    "422": "A damaged image, or one of too many pixels",
    "429": "The queue is full; Retry-After says when to come back",
    "503": "Not ready",
    "504": "No answer within the deadline",
}


def operation(
    summary: str,
    description: str,
    curl: str,
    *,
    ok: Json,
    body: Json | None = None,
    parameters: list[Json] | None = None,
    errors: tuple[str, ...] = (),
    created: bool = False,
    failure: str = "Error",
) -> Json:
    """Return an operation object; `ok` maps media types to schemas, `curl` is an example to paste."""
    answers: Json = {"200": {"description": "Done", "content": {k: {"schema": v} for k, v in ok.items()}}}
    if created:
        answers["201"] = {**answers["200"], "description": "Added"}
    for status in errors:
        answers[status] = {
            "description": ERRORS.get(status, "Not allowed here"),
            "content": {"application/json": {"schema": ref(failure)}},
        }
    operation: Json = {
        "summary": summary,
        "description": description,
        "responses": answers,
        "x-codeSamples": [{"lang": "Shell", "source": curl}],
    }
    if body is not None:
        operation["requestBody"] = body
    if parameters:
        operation["parameters"] = parameters
    return operation


def image_body(json_schema: Json) -> Json:
    """Return the request body of a route that takes images in all three forms."""
    binary = {"type": "string", "format": "binary"}
    content: Json = {kind: {"schema": binary} for kind in sorted(MEDIA_TYPES)}
    content["application/octet-stream"] = {"schema": binary}
    content["multipart/form-data"] = {
        "schema": {"type": "object", "properties": {"images": {"type": "array", "items": binary}}}
    }
    content["application/json"] = {"schema": json_schema}
    return {"required": True, "content": content}


def parameter(name: str, where: str, schema: Json, description: str) -> Json:
    """Return a parameter object."""
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "schema": schema,
        "description": description,
    }


def encoding() -> Json:
    """Return the parameter encoding_format."""
    return parameter("encoding_format", "query", {"enum": ["float", "base64"], "default": "float"}, "")


def ref(name: str) -> Json:
    """Return a reference to a schema."""
    return {"$ref": f"#/components/schemas/{name}"}
