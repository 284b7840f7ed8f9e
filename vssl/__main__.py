"""`python -m vssl` is `vssl`."""

from vssl.cli.main import run

run()
