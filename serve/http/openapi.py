"""The routes -> an OpenAPI 3.1 document with examples that can be pasted.

Shape letters: D embedding dimension.
"""

from __future__ import annotations

from typing import Any

from vssl import __version__
from vssl.decode import MEDIA_TYPES

Json = dict[str, Any]

ERRORS = {
    "400": "Malformed: the message names the parameter",
    "401": "The API key is missing or not one of the server's",
    "404": "No such item, or the server has no gallery",
    "408": "The body did not arrive in time",
    "409": "The query is of another model",
    "413": "Too many bytes or too many images",
    "415": "Not an image of a supported type",
    "422": "A damaged image, or one of too many pixels",
    "429": "The queue is full; Retry-After says when to come back",
    "503": "Not ready",
    "504": "No answer within the deadline",
}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGNgYGD4jwMPVgkGABfMP8FOg4C3AAAAAElFTkSuQmCC"


def specification(dim: int) -> Json:
    """Return the document for a model of D dimensions."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "vssl",
            "version": __version__,
            "description": "Images in, Gaussian embeddings out: a mean and a variance per dimension, and one "
            "number that says how unsure the model is. Search compares those Gaussians.",
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"bearer": []}, {"apiKey": []}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
            "schemas": _schemas(dim),
        },
    }


def _paths() -> Json:
    item = [_parameter("id", "path", {"type": "string", "minLength": 1, "maxLength": 1024}, "The item's id")]
    return {
        "/embed": {
            "post": _operation(
                "Embed images",
                "One answer or one error per image, in order. Ask for another form with Accept "
                "(application/vnd.apache.arrow.stream, application/x-npz) or with encoding_format=base64.",
                "curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' $URL/embed",
                ok={
                    "application/json": _ref("EmbedAnswer"),
                    "application/vnd.apache.arrow.stream": {"type": "string", "format": "binary"},
                    "application/x-npz": {"type": "string", "format": "binary"},
                },
                body=_image_body(_ref("EmbedRequest")),
                parameters=[_encoding()],
                errors=("400", "401", "408", "413", "415", "422", "429", "503", "504"),
            )
        },
        "/search": {
            "post": _operation(
                "Search with images or Gaussians",
                "Images as in /embed, or the mean and variance of earlier answers. A query above "
                "max_uncertainty gets no neighbours.",
                "curl --data-binary @photo.jpg '$URL/search?k=5'",
                ok={"application/json": _ref("SearchAnswer")},
                body=_image_body(_ref("SearchRequest")),
                parameters=[
                    _parameter(
                        "k", "query", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 10}, ""
                    ),
                    _parameter("distance", "query", {"type": "string"}, "The gallery's own when absent"),
                    _parameter("max_uncertainty", "query", {"type": "number"}, "Bound on uncertainty"),
                    _parameter("filter", "query", {"type": "string"}, 'JSON, for example {"label": "cat"}'),
                ],
                errors=("400", "401", "404", "408", "409", "413", "415", "422", "429", "503", "504"),
            )
        },
        "/gallery": {
            "get": _operation(
                "Describe the gallery",
                "Size, distance, model id.",
                "curl $URL/gallery",
                ok={"application/json": {"type": "object"}},
                errors=("401", "404"),
            )
        },
        "/gallery/{id}": {
            "parameters": item,
            "get": _operation(
                "Read an item",
                "Its label and Gaussian.",
                "curl $URL/gallery/cats/1.jpg",
                ok={"application/json": _ref("Item")},
                parameters=[_encoding()],
                errors=("400", "401", "404"),
            ),
            "put": _operation(
                "Add or replace an item",
                "Embeds the image of the body. The answer means that it is on the disk.",
                "curl -X PUT --data-binary @photo.jpg '$URL/gallery/cats/1.jpg?label=cat'",
                ok={"application/json": _ref("Written")},
                body=_image_body(_ref("EmbedRequest")),
                parameters=[_parameter("label", "query", {"type": "string"}, "The item's label")],
                errors=("400", "401", "404", "408", "413", "415", "422", "429", "503", "504"),
                created=True,
            ),
            "delete": _operation(
                "Remove an item",
                "The answer means that it is gone from the disk.",
                "curl -X DELETE $URL/gallery/cats/1.jpg",
                ok={"application/json": {"type": "object"}},
                errors=("400", "401", "404"),
            ),
        },
        "/thumbnails/{id}": {
            "parameters": item,
            "get": _operation(
                "A small JPEG of an item",
                "Only when the operator allows it (--show-images).",
                "curl $URL/thumbnails/cats/1.jpg",
                ok={"image/jpeg": {"type": "string", "format": "binary"}},
                errors=("400", "401", "403", "404"),
            ),
        },
        "/model": {
            "get": _operation(
                "The model card",
                "What the model is, its id, the accepted formats and the limits.",
                "curl $URL/model",
                ok={"application/json": {"type": "object"}},
                errors=("401",),
            )
        },
        "/livez": {
            "get": _operation(
                "Alive",
                "The process answers.",
                "curl $URL/livez",
                ok={"application/json": {"type": "object"}},
            )
        },
        "/readyz": {
            "get": _operation(
                "Ready",
                "The model answers its golden pair.",
                "curl $URL/readyz",
                ok={"application/json": {"type": "object"}},
                errors=("503",),
            )
        },
        "/metrics": {
            "get": _operation(
                "Prometheus metrics",
                "Requests, stages in seconds, batch sizes, queue, uncertainty.",
                "curl $URL/metrics",
                ok={"text/plain": {"type": "string"}},
                errors=("401",),
            )
        },
    }


def _schemas(dim: int) -> Json:
    vector = {"type": "array", "items": {"type": "number"}, "minItems": dim, "maxItems": dim}
    floats = {
        "oneOf": [
            vector,
            {"type": "string", "description": "base64 of little-endian float32, with encoding_format=base64"},
        ]
    }
    failed = {
        "type": "object",
        "required": ["error"],
        "properties": {
            "name": {"type": "string"},
            "query": {"type": "string"},
            "error": {
                "type": "object",
                "required": ["code", "message"],
                "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    }
    gaussian: Json = {"mean": floats, "variance": floats, "uncertainty": {"type": "number"}}
    images = {
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "required": ["base64"],
            "properties": {"base64": {"type": "string"}, "name": {"type": "string"}},
        },
        "examples": [[{"base64": PIXEL, "name": "a"}]],
    }
    rows = {"oneOf": [vector, {"type": "array", "minItems": 1, "items": vector}]}
    options: Json = {
        "k": {"type": "integer", "minimum": 1, "maximum": 1000},
        "distance": {"type": "string"},
        "max_uncertainty": {"type": "number"},
        "filter": {"type": "object"},
    }
    return {
        "Error": {
            "type": "object",
            "required": ["error"],
            "properties": {
                "error": {
                    "type": "object",
                    "required": ["code", "message", "type", "param"],
                    "properties": {
                        "code": {"type": "string"},
                        "message": {"type": "string"},
                        "type": {"type": "string"},
                        "param": {"type": ["string", "null"]},
                    },
                }
            },
        },
        "EmbedRequest": {
            "type": "object",
            "required": ["images"],
            "properties": {"images": images, "encoding_format": {"enum": ["float", "base64"]}},
        },
        "EmbedAnswer": {
            "type": "object",
            "required": ["model_id", "dim", "results"],
            "properties": {
                "model_id": {"type": "string"},
                "dim": {"const": dim},
                "results": {
                    "type": "array",
                    "items": {
                        "oneOf": [
                            {
                                "type": "object",
                                "required": ["mean", "variance", "uncertainty"],
                                "properties": {"name": {"type": "string"}, **gaussian},
                            },
                            failed,
                        ]
                    },
                },
            },
        },
        "SearchRequest": {
            "oneOf": [
                {"type": "object", "required": ["images"], "properties": {"images": images, **options}},
                {
                    "type": "object",
                    "required": ["mean", "variance"],
                    "properties": {
                        "mean": rows,
                        "variance": rows,
                        "model_id": {"type": "string"},
                        **options,
                    },
                },
            ]
        },
        "SearchAnswer": {
            "type": "object",
            "required": ["model_id", "k", "results"],
            "properties": {
                "model_id": {"type": "string"},
                "k": {"type": "integer"},
                "results": {
                    "type": "array",
                    "items": {
                        "oneOf": [
                            {
                                "type": "object",
                                "required": ["uncertainty", "neighbours"],
                                "properties": {
                                    "query": {"type": "string"},
                                    "uncertainty": {"type": "number"},
                                    "neighbours": {"type": "array", "items": _ref("Neighbour")},
                                },
                            },
                            failed,
                        ]
                    },
                },
            },
        },
        "Neighbour": {
            "type": "object",
            "required": ["id", "label", "distance", "variance_score", "match_probability"],
            "properties": {
                "id": {"type": "string"},
                "label": {"type": ["string", "null"]},
                "distance": {"type": "number", "description": "smaller is nearer"},
                "variance_score": {"type": ["number", "null"]},
                "match_probability": {"type": ["number", "null"]},
            },
        },
        "Item": {
            "type": "object",
            "required": ["id", "label", "model_id", "mean", "variance", "uncertainty"],
            "properties": {
                "id": {"type": "string"},
                "label": {"type": ["string", "null"]},
                "model_id": {"type": "string"},
                **gaussian,
            },
        },
        "Written": {
            "type": "object",
            "required": ["id", "replaced"],
            "properties": {
                "id": {"type": "string"},
                "label": {"type": ["string", "null"]},
                "uncertainty": {"type": "number"},
                "replaced": {"type": "boolean"},
            },
        },
    }


def _operation(
    summary: str,
    description: str,
    curl: str,
    *,
    ok: Json,
    body: Json | None = None,
    parameters: list[Json] | None = None,
    errors: tuple[str, ...] = (),
    created: bool = False,
) -> Json:
    answers: Json = {"200": {"description": "Done", "content": {k: {"schema": v} for k, v in ok.items()}}}
    if created:
        answers["201"] = {**answers["200"], "description": "Added"}
    for status in errors:
        answers[status] = {
            "description": ERRORS.get(status, "Not allowed here"),
            "content": {"application/json": {"schema": _ref("Error")}},
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


def _image_body(json_schema: Json) -> Json:
    binary = {"type": "string", "format": "binary"}
    content: Json = {kind: {"schema": binary} for kind in sorted(MEDIA_TYPES)}
    content["application/octet-stream"] = {"schema": binary}
    content["multipart/form-data"] = {
        "schema": {"type": "object", "properties": {"images": {"type": "array", "items": binary}}}
    }
    content["application/json"] = {"schema": json_schema}
    return {"required": True, "content": content}


def _parameter(name: str, where: str, schema: Json, description: str) -> Json:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "schema": schema,
        "description": description,
    }


def _encoding() -> Json:
    return _parameter("encoding_format", "query", {"enum": ["float", "base64"], "default": "float"}, "")


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
