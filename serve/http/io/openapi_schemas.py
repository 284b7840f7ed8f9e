"""The schemas of our own routes: what is sent and what comes back. Shape letters: D embedding dimension."""

from __future__ import annotations

from serve.http.io.openapi_parts import Json, ref

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFElEQVR4nGOM6rFhwAaYsIoOWgkA53IBMpXXa2gAAAAASUVORK5CYII="
)


def native_schemas(dim: int, names: list[str], max_items: int) -> Json:
    """Return the schemas of our own routes; models answer to `names`."""
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
        "maxItems": max_items,
        "items": {
            "type": "object",
            "anyOf": [{"required": ["base64"]}, {"required": ["url"]}],
            "properties": {
                "base64": {"type": "string", "format": "byte"},
                "url": {
                    "type": "string",
                    "description": "https, of a host that the operator named; a data URI needs no host",
                },
                "name": {"type": ["string", "null"]},
            },
        },
        "examples": [[{"base64": PIXEL, "name": "a"}]],
    }
    rows = {"oneOf": [vector, {"type": "array", "minItems": 1, "maxItems": max_items, "items": vector}]}
    options: Json = {
        "k": {"type": "integer", "minimum": 1, "maximum": 1000},
        "distance": {"type": ["string", "null"]},
        "max_uncertainty": {"type": ["number", "null"]},
        "filter": {"type": ["object", "string", "null"], "description": "an object, or one as JSON text"},
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
            "properties": {
                "images": images,
                "encoding_format": {"enum": ["float", "base64"]},
                "model": {"enum": [*names, None]},
            },
        },
        "PutRequest": {
            "type": "object",
            "required": ["images"],
            "properties": {"images": {**images, "maxItems": 1}, "label": {"type": ["string", "null"]}},
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
                                    "abstain": {
                                        "type": "boolean",
                                        "description": "with --max-risk: whether not to trust the answer",
                                    },
                                    "neighbours": {"type": "array", "items": ref("Neighbour")},
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
