"""`vssl` and `python -m vssl`: the command line, which Ctrl-C ends in one line while it is still being loaded, too."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Load the command line and run it (`vssl.cli.main.run`)."""
    try:
        from vssl.cli.main import run
    except KeyboardInterrupt:
        sys.stderr.write("vssl: interrupted\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    # Python looks into the folder it is started in first, where a person's own serve.py or train.py would
    # be taken for our packages; it is looked into last, unless our packages lie in it.
    if not sys.flags.safe_path and Path(sys.path[0]).resolve() != Path(__file__).resolve().parent.parent:
        sys.path.append(sys.path.pop(0))
    main()
