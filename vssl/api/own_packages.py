"""The names train, export, serve and index -> our packages, whatever else of these names a person has."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from vssl.errors import InputError

PACKAGES = ("train", "export", "serve", "index")


def find_own_packages() -> None:
    """Make the names of our packages mean ours, also where a person's own train.py lies beside a script.

    Raises InputError where such a module of a person's is loaded already.
    """
    home = Path(__file__).resolve().parents[2]
    for name in PACKAGES:
        ours, loaded = home / name / "__init__.py", sys.modules.get(name)
        if loaded is None:
            folder = [str(ours.parent)]
            spec = importlib.util.spec_from_file_location(name, ours, submodule_search_locations=folder)
            if spec is None or spec.loader is None or not ours.is_file():
                continue  # not part of this installation
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
        elif Path(loaded.__file__ or "").resolve() != ours:
            raise InputError(
                f"found a module {name} of your own ({loaded.__file__}), where vssl has a package of that name; "
                "rename yours, or import vssl before it"
            )
