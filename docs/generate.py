"""The program itself -> the pages of the reference that describe it: python docs/generate.py."""

from __future__ import annotations

import inspect
from pathlib import Path

import typer.main
from typer.cli import get_docs_for_click

import vssl
from vssl.cli.glossary import METRICS, WORDS
from vssl.cli.main import app

REFERENCE = Path(__file__).parent / "reference"


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


PAGES = {"commands.md": commands, "python.md": python_api, "glossary.md": glossary}


def write() -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")


def on_pre_build(config: object) -> None:
    """Write the pages before the site is built (a hook of mkdocs)."""
    write()


if __name__ == "__main__":
    write()
