"""`python -m vssl` is `vssl`."""

from __future__ import annotations

import sys
from pathlib import Path

# Python looks into the folder it is started in first, where a person's own serve.py or train.py would
# be taken for our packages; it is looked into last, unless our packages lie in it.
if not sys.flags.safe_path and Path(sys.path[0]).resolve() != Path(__file__).resolve().parent.parent:
    sys.path.append(sys.path.pop(0))

from vssl.cli.main import run

run()
