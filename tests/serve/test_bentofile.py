"""bentofile.yaml names the service and installs what the extra `cpu` installs, no more, no less."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
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


def test_an_installed_pyarrow_is_lightened_and_still_reads_and_writes(tmp_path: Path) -> None:
    import pyarrow

    bento = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    script = ROOT / bento["docker"]["setup_script"]
    shutil.copytree(Path(pyarrow.__file__).parent, tmp_path / "pyarrow")
    before = size(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "PYTHONPATH": str(tmp_path)}
    # A symlink to a virtual environment's python is that of its base: numpy must be named too.
    environment["PYTHONPATH"] += f":{sysconfig.get_paths()['purelib']}"
    subprocess.run(["sh", script], env=environment, check=True, timeout=200)
    assert size(tmp_path) < 0.75 * before
    code = (
        "import pyarrow as pa, pyarrow.parquet as pq, sys\n"
        "assert pa.__file__.startswith(sys.argv[1])\n"
        "pq.write_table(pa.table({'a': [1, 2]}), sys.argv[1] + '/t.parquet')\n"
        "assert pq.read_table(sys.argv[1] + '/t.parquet')['a'].to_pylist() == [1, 2]\n"
    )
    subprocess.run(
        [tmp_path / "bin" / "python", "-c", code, tmp_path], env=environment, check=True, timeout=200
    )


def size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
