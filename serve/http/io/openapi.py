"""The routes -> an OpenAPI 3.1 document: paths from their declarations, schemas from their types."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from serve.http.io.schemas import ItemId, ModelName, Version
from serve.http.routes.routing import Route
from vssl.images.formats import MEDIA_TYPES
from vssl.model.identity import VERSION

Json = dict[str, Any]
REF = "#/components/schemas/{model}"
MODE: JsonSchemaMode = "validation"
BINARY: Json = {"type": "string", "format": "binary"}
DESCRIPTION = (
    "Images in, Gaussian embeddings out: a mean and a variance per dimension, and one number that says how "
    "unsure the model is. Search compares those Gaussians."
)
STATUSES = {
    400: "Malformed: the message names the parameter, or what of the request; or too many values in the JSON",
    401: "The API key is missing or not one of the server's",
    403: "Not allowed here",
    404: "No such item or model, or the server has no gallery",
    408: "The body did not arrive in time",
    409: "Of another model, or the gallery is read-only here",
    413: "Too many bytes",
    415: "Not an image of a supported type, or a compressed body",
    422: "A damaged image, or one of too many pixels",
    429: "The queue is full; Retry-After says when to come back",
    503: "Not ready",
    504: "No answer within the deadline",
}
OF_BODIES = (408, 413, 415, 422, 429, 503, 504)
PATH_PARAMETERS = {
    "id": (ItemId, "The item's id"),
    "name": (ItemId, "The column's name"),
    "model": (ModelName, "The model's name, name@version or id"),
    "version": (Version, '"1" unless started as NAME@VERSION'),
}


def document(routes: Sequence[Route[Any]], bounds: Mapping[str, Json]) -> Json:
    """Return the document; `bounds` are what this server narrows: constraints by the name of a schema."""
    types: list[Any] = [ItemId, ModelName, Version]
    for route in routes:
        types += [t for t in (route.query, route.body, route.answer, route.error) if t is not None]
    # Types are looked up by identity: not all of them can be hashed.
    inputs = [(n, MODE, TypeAdapter(t)) for n, t in enumerate(types)]
    found, shared = TypeAdapter.json_schemas(inputs, ref_template=REF)
    schemas: Json = shared.get("$defs", {})
    for name, bound in bounds.items():
        schemas[name] |= bound
    schema_of = {id(t): found[n, MODE] for n, t in enumerate(types)}
    paths: Json = {}
    for route in routes:
        item = paths.setdefault(re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path), {})
        item[route.method.lower()] = _operation(route, schema_of, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "vssl", "version": VERSION, "description": DESCRIPTION},
        "servers": [{"url": "/"}],
        "security": [{}, {"bearer": []}, {"apiKey": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
            "schemas": schemas,
        },
    }


def served_bounds(
    dim: int | None, side: int, names: Iterable[str], versions: Iterable[int], max_items: int
) -> dict[str, Json]:
    """Return what one server narrows: vectors of D numbers, its models' names and versions, images a request."""
    vector = {} if dim is None else {"minItems": dim, "maxItems": dim}
    return {
        "Vector": vector,
        "PositiveVector": vector,
        "ModelName": {"enum": list(names)},
        "Version": {"enum": [str(version) for version in versions]},
        "Images": {"maxItems": max_items},
        "Shape": {
            "prefixItems": [
                {"minimum": 1, "maximum": max_items},
                {"const": side},
                {"const": side},
                {"const": 3},
            ]
        },
    }


def _operation(route: Route[Any], schema_of: Mapping[int, Json], schemas: Mapping[str, Json]) -> Json:
    path_names = re.findall(r"\{(\w+)", route.path)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": schema_of[id(kind)], "description": text}
        for name, (kind, text) in PATH_PARAMETERS.items()
        if name in path_names
    ]
    query = _resolved(schema_of[id(route.query)], schemas)
    parameters += [_query_parameter(name, field) for name, field in query.get("properties", {}).items()]
    summary, _, description = (inspect.getdoc(route.handler) or "").partition("\n\n")
    operation: Json = {
        "summary": summary.removesuffix("."),
        "description": " ".join(description.split()),
        "parameters": parameters,
        "responses": _responses(route, schema_of),
        "x-codeSamples": [{"lang": "Shell", "source": route.example}],
    }
    if route.body is not None:
        content: Json = {"application/json": {"schema": schema_of[id(route.body)]}}
        operation["requestBody"] = {"required": True, "content": content}
        if route.takes_images:
            content |= {
                kind: {"schema": BINARY} for kind in ("application/octet-stream", *sorted(MEDIA_TYPES))
            }
            fields = {p["name"]: _written_in_form(p) for p in parameters if p["in"] == "query"}
            fields["images"] = {"type": "array", "items": BINARY, "minItems": 1}
            form = {"type": "object", "properties": fields, "required": ["images"]}
            content["multipart/form-data"] = {"schema": form | {"additionalProperties": False}}
    return operation


def _responses(route: Route[Any], schema_of: Mapping[int, Json]) -> Json:
    """Return what a route answers, by status."""
    content: Json = {media: {"schema": BINARY} for media in route.media}
    if route.answer is not None:
        content = {"application/json": {"schema": schema_of[id(route.answer)]}, **content}
    answers: Json = {"200": {"description": "Done", "content": content}}
    if route.creates:
        answers["201"] = {"description": "Added", "content": content}
    statuses = {400, *route.statuses, *(OF_BODIES if route.body is not None else ())}
    if not route.is_open:
        statuses.add(401)
    if "{" in route.path or "model" in route.query.model_fields:
        statuses.add(404)
    failure = {"application/json": {"schema": schema_of[id(route.error)]}}
    return answers | {str(s): {"description": STATUSES[s], "content": failure} for s in sorted(statuses)}


def _query_parameter(name: str, field: Json) -> Json:
    """Return a query parameter; null cannot be written there, and an object is written as JSON."""
    options = [option for option in field.get("anyOf", [field]) if option != {"type": "null"}]
    schema = options[0] if len(options) == 1 else {"anyOf": options}
    parameter: Json = {"name": name, "in": "query", "description": field.get("description", "")}
    if schema.get("type") == "object":
        return parameter | {"content": {"application/json": {"schema": schema}}}
    return parameter | {"schema": schema}


def _written_in_form(parameter: Json) -> Json:
    """Return the schema of a form's field: the same words as in the query."""
    schema: Json = parameter.get("schema") or parameter["content"]["application/json"]["schema"]
    return schema


def _resolved(schema: Json, schemas: Mapping[str, Json]) -> Json:
    """Return the schema that a reference points to."""
    name = schema.get("$ref", "").removeprefix(REF.format(model=""))
    return dict(schemas[name]) if name else schema
