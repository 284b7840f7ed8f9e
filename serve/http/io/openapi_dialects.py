"""The OpenAI and KServe v2 dialects, as paths and schemas of the OpenAPI document.

Shape letters: N images, D embedding dimension, S side of the model's input.
"""

from __future__ import annotations

from serve.http.io.openapi_parts import Json, operation, parameter, ref
from vssl.model.card import ModelCard

TEXT: Json = {"type": "string", "minLength": 1}
OBJECT: Json = {"application/json": {"type": "object"}}
BINARY: Json = {"type": "string", "format": "binary"}
KSERVE = "KServeError"
REFUSALS = ("400", "401", "404", "408", "413", "415", "422", "429", "503", "504")


def dialect_paths(name: str) -> Json:
    """Return the paths of both dialects."""
    return {**_openai_paths(name), **_kserve_paths(name)}


def _openai_paths(name: str) -> Json:
    return {
        "/v1/embeddings": {
            "post": operation(
                "OpenAI: embeddings",
                "Images as data URIs in input; embedding is the mean, variance and uncertainty stand beside it.",
                "curl $URL/v1/embeddings -H 'Content-Type: application/json' "
                '-d \'{"input": "data:image/png;base64,..."}\'',
                ok={"application/json": ref("EmbeddingsAnswer")},
                body=_json_body("EmbeddingsRequest"),
                errors=REFUSALS,
            )
        },
        "/v1/models": {
            "get": operation(
                "OpenAI: models", "The one model.", "curl $URL/v1/models", ok=OBJECT, errors=("401", "503")
            )
        },
        "/v1/models/{model}": {
            "parameters": [_model(name)],
            "get": operation(
                "OpenAI: a model",
                "By name or id.",
                "curl $URL/v1/models/MODEL",
                ok=OBJECT,
                errors=("401", "404", "503"),
            ),
        },
    }


def _kserve_paths(name: str) -> Json:
    version = parameter("version", "path", {**TEXT, "examples": ["1"]}, '"1" unless started as NAME@VERSION')
    paths: Json = {
        "/v2": {"get": _kserve("the server", "Name, version, extensions.", "")},
        "/v2/health/live": {"get": _kserve("alive", "The process answers.", "/health/live")},
        "/v2/health/ready": {
            "get": _kserve("ready", "The model answers its golden pair.", "/health/ready"),
        },
    }
    for path, parameters in (("", [_model(name)]), ("/versions/{version}", [_model(name), version])):
        base = "/v2/models/{model}" + path
        paths[base] = {
            "parameters": parameters,
            "get": _kserve("the model's tensors", "Names, types and shapes.", "/models/MODEL"),
        }
        paths[f"{base}/ready"] = {
            "parameters": parameters,
            "get": _kserve("the model is ready", "It answers its golden pair.", "/models/MODEL/ready"),
        }
        paths[f"{base}/infer"] = {
            "parameters": parameters,
            "post": operation(
                "KServe: run the graph",
                "Input images, uint8 (N, S, S, 3) at the model's size; outputs mean, variance, features. "
                "Binary tensors as in the protocol's extension.",
                "python: tritonclient.http.InferenceServerClient('HOST:PORT').infer('MODEL', [images])",
                ok={"application/json": ref("InferAnswer"), "application/octet-stream": BINARY},
                body=_json_body("InferRequest"),
                errors=REFUSALS,
                failure=KSERVE,
            ),
        }
    return paths


def _kserve(summary: str, description: str, path: str) -> Json:
    errors = ("401", "404", "503")
    curl = f"curl $URL/v2{path}"
    return operation(f"KServe: {summary}", description, curl, ok=OBJECT, errors=errors, failure=KSERVE)


def _model(name: str) -> Json:
    return parameter("model", "path", {**TEXT, "examples": [name]}, "The model's name, or its id")


def _json_body(schema: str) -> Json:
    return {"required": True, "content": {"application/json": {"schema": ref(schema)}}}


def dialect_schemas(card: ModelCard, names: list[str], max_items: int) -> Json:
    """Return the schemas of both dialects."""
    failure = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    return {
        KSERVE: failure,
        **_openai_schemas(card.dim, names, max_items),
        **_kserve_schemas(card.preprocess.size, max_items),
    }


def _openai_schemas(dim: int, names: list[str], max_items: int) -> Json:
    url = {"type": "object", "required": ["url"], "properties": {"url": {"type": "string"}}}
    image = {
        "oneOf": [
            {"type": "string", "description": "data:image/...;base64,..."},
            {"type": "object", "required": ["image_url"], "properties": {"image_url": url}},
        ]
    }
    floats = {"oneOf": [{"type": "array", "items": {"type": "number"}}, {"type": "string"}]}
    row = {
        "object": {"const": "embedding"},
        "index": {"type": "integer"},
        "embedding": floats,
        "variance": floats,
        "uncertainty": {"type": "number"},
    }
    return {
        "EmbeddingsRequest": {
            "type": "object",
            "required": ["input"],
            "properties": {
                "model": {"enum": [*names, None]},
                "input": {
                    "oneOf": [image, {"type": "array", "minItems": 1, "maxItems": max_items, "items": image}]
                },
                "encoding_format": {"enum": ["float", "base64"]},
                "dimensions": {"type": "integer", "minimum": 1, "maximum": dim},
                "user": {"type": "string"},
            },
        },
        "EmbeddingsAnswer": {
            "type": "object",
            "required": ["object", "data", "model", "usage"],
            "properties": {
                "object": {"const": "list"},
                "model": {"type": "string"},
                "usage": {"type": "object"},
                "data": {
                    "type": "array",
                    "items": {"type": "object", "required": list(row), "properties": row},
                },
            },
        },
    }


def _kserve_schemas(size: int, max_items: int) -> Json:
    names = {"enum": ["mean", "variance", "features"]}
    shape = {
        "type": "array",
        "prefixItems": [
            {"type": "integer", "minimum": 1, "maximum": max_items},
            {"const": size},
            {"const": size},
            {"const": 3},
        ],
        "minItems": 4,
        "maxItems": 4,
    }
    tensor = {
        "name": {"const": "images"},
        "datatype": {"const": "UINT8"},
        "shape": shape,
        "data": {"type": "array"},
        "parameters": {"type": "object"},
    }
    output = {
        "name": names,
        "datatype": {"const": "FP32"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "data": {"type": "array", "items": {"type": "number"}},
        "parameters": {"type": "object"},
    }
    required = ["name", "datatype", "shape"]
    return {
        "InferRequest": {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "id": {"type": "string"},
                "inputs": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 1,
                    "items": {"type": "object", "required": required, "properties": tensor},
                },
                "outputs": {
                    "type": "array",
                    "items": {"type": "object", "required": ["name"], "properties": {"name": names}},
                },
                "parameters": {"type": "object"},
            },
        },
        "InferAnswer": {
            "type": "object",
            "required": ["model_name", "model_version", "outputs"],
            "properties": {
                "id": {"type": "string"},
                "model_name": {"type": "string"},
                "model_version": {"type": "string"},
                "outputs": {
                    "type": "array",
                    "items": {"type": "object", "required": required, "properties": output},
                },
            },
        },
    }
