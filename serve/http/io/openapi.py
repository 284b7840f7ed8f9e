"""The routes -> an OpenAPI 3.1 document with examples that can be pasted."""

from __future__ import annotations

from serve.http.io.openapi_dialects import dialect_paths, dialect_schemas
from serve.http.io.openapi_native import native_paths
from serve.http.io.openapi_parts import Json
from serve.http.io.openapi_schemas import native_schemas
from vssl import __version__
from vssl.model.card import ModelCard


def specification(card: ModelCard, name: str, names: list[str], max_items: int) -> Json:
    """Return the document for the models that are served: the first one's card, and what all answer to."""
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
        "paths": {**native_paths(names), **dialect_paths(name)},
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
            "schemas": {
                **native_schemas(card.dim, names, max_items),
                **dialect_schemas(card, names, max_items),
            },
        },
    }
