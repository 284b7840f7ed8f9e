"""The program itself -> the pages of the reference that describe it: python docs/generate.py."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import typer.main
from typer.cli import get_docs_for_click

import vssl
from serve.http.app import DESCRIBED
from serve.http.io.openapi import STATUSES, document
from vssl.cli.glossary import METRICS, WORDS
from vssl.cli.main import app

REFERENCE = Path(__file__).parent / "reference"
HTTP = """# HTTP

Every route of `vssl serve`, from the server's own OpenAPI document (`/openapi.json`, and `/docs` as a page). What holds
for all of them, settings and limits: [serving](serving.md). Names in capitals are [types](http-types.md).
In the examples `URL=http://127.0.0.1:3000`.

| status | when |
|---|---|
"""
HTTP_TYPES = """# Types of HTTP bodies and answers

Of the [routes](http.md). A field with a `?` may be absent. Numbers are written with the fewest digits that read back to
the same float32.
"""
PARTS = {
    "/v1": "The OpenAI dialect",
    "/v2": "The KServe dialect",
    "/gallery": "Gallery",
    "/model": "The server",
}
"""A route's first segment -> the part of the page that begins there."""


def commands() -> str:
    """Return every verb with its arguments and options."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="vssl")
    return get_docs_for_click(obj=command, ctx=context, name="vssl").rstrip() + "\n"


def glossary() -> str:
    """Return every word that results use, what it means, and what is better."""
    text = "# Glossary\n\nThe words of tables and reports.\n"
    for title, words in (("Answers and tables", WORDS), ("Metrics of `vssl evaluate`", METRICS)):
        rows = [
            f"| `{name}` | {better or 'neither'} | {meaning} |" for name, (better, meaning) in words.items()
        ]
        text += f"\n## {title}\n\n| word | better | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    return text


def python_api() -> str:
    """Return every name of `import vssl` with its signature and what it says of itself."""
    text = "# Python\n\n    import vssl\n"
    for name in vssl.__all__:
        value = getattr(vssl, name)
        if not callable(value):
            continue
        text += f"\n## `vssl.{name}`\n\n{_described(name, value)}"
        if inspect.isclass(value):
            methods = {k: getattr(value, k) for k in vars(value) if not k.startswith("_")}
            text += "".join(f"\n### `{k}`\n\n{_described(k, m)}" for k, m in methods.items() if callable(m))
    return text


def _described(name: str, value: object) -> str:
    signature = ""
    if callable(value) and not (isinstance(value, type) and issubclass(value, Exception)):
        signature = str(inspect.signature(value)).replace("'", "")  # annotations are kept as texts
    return f"    {name}{signature}\n\n```text\n{inspect.getdoc(value) or ''}\n```\n"


def http() -> str:
    """Return every HTTP route: parameters, body, statuses and an example."""
    described: dict[str, Any] = document(DESCRIBED, {})
    text = HTTP + "".join(f"| {status} | {when} |\n" for status, when in STATUSES.items())
    text += "\n## Embed and search\n"
    begun = set[str]()
    for path, methods in described["paths"].items():
        first = "/" + path.split("/")[1]
        if first in PARTS and first not in begun:
            begun.add(first)
            text += f"\n## {PARTS[first]}\n"
        text += "".join(_route(method.upper(), path, operation) for method, operation in methods.items())
    return text


def http_types() -> str:
    """Return the types of HTTP bodies and answers; those of query parameters stand with their routes."""
    schemas: dict[str, Any] = document(DESCRIBED, {})["components"]["schemas"]
    return HTTP_TYPES + "".join(
        _schema(name, schema) for name, schema in schemas.items() if not name.endswith(("Options", "Query"))
    )


def _route(method: str, path: str, operation: dict[str, Any]) -> str:
    said = f"{operation['summary']}. {operation['description']}".rstrip()
    text = f"\n### `{method} {path}`\n\n{said}\n\n"
    for parameter in operation["parameters"]:
        schema = parameter.get("schema") or parameter["content"]["application/json"]["schema"]
        text += f"- {parameter['in']} `{parameter['name']}`, {_kind(schema)}: {parameter['description']}\n"
    if body := operation.get("requestBody", {}).get("content"):
        form = ", or image bytes, or a form with `images`" if "multipart/form-data" in body else ""
        text += f"- body: {_kind(body['application/json']['schema'])} as JSON{form}\n"
    answers = operation["responses"]
    content = answers["200"]["content"]
    forms = [
        _kind(value["schema"]) if kind == "application/json" else f"`{kind}`"
        for kind, value in content.items()
    ]
    text += f"- answers {', '.join(status for status in answers if status < '300')}: {', '.join(forms)}"
    failed = ", ".join(status for status in answers if status > "300")
    text += f"; fails with {failed}\n" if failed else "\n"
    return f"{text}- example: `{operation['x-codeSamples'][0]['source']}`\n"


def _schema(name: str, schema: dict[str, Any]) -> str:
    needed = schema.get("required", [])
    fields = [
        f"`{field}`{'' if field in needed else '?'} {_kind(kind)}"
        for field, kind in schema.get("properties", {}).items()
    ]
    said = schema.get("description", "")
    return f"\n**{name}** {said} {'; '.join(fields) or _kind(schema)}\n".replace("  ", " ")


def _kind(schema: dict[str, Any]) -> str:
    """Return a JSON schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_kind(option) for option in options)
    if values := schema.get("enum") or ([schema["const"]] if "const" in schema else []):
        return " or ".join(f"`{value}`" for value in values)
    kind = str(schema.get("type", "any value"))
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    least, most = schema.get("minimum"), schema.get("maximum")
    bounds = "" if least is None else f" {least:g} .. {most:g}" if most is not None else f" from {least:g}"
    if "exclusiveMinimum" in schema:
        bounds = f" above {schema['exclusiveMinimum']:g}"
    if "exclusiveMaximum" in schema:
        bounds += f" below {schema['exclusiveMaximum']:g}"
    return {"string": "text", "integer": "whole number"}.get(kind, kind) + bounds


PAGES = {
    "commands.md": commands,
    "python.md": python_api,
    "http.md": http,
    "http-types.md": http_types,
    "glossary.md": glossary,
}


def write() -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")


def on_pre_build(config: object) -> None:
    """Write the pages before the site is built (a hook of mkdocs)."""
    write()


if __name__ == "__main__":
    write()
