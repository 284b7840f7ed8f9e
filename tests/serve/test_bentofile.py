"""bentofile.yaml names the service and installs what the extra `cpu` installs, no more, no less."""

from __future__ import annotations

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_the_bento_installs_the_serving_extra() -> None:
    bento = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert bento["service"] == "serve.service:Vssl"
    assert set(bento["python"]["packages"]) == {
        *project["dependencies"],
        *project["optional-dependencies"]["cpu"],
    }
