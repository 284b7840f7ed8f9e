"""The program itself -> the pages of the reference that describe it: python docs/generate.py."""

from __future__ import annotations

from pathlib import Path

import typer.main
from typer.cli import get_docs_for_click

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


PAGES = {"commands.md": commands, "glossary.md": glossary}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")
