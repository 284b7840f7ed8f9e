"""Every fault planted in a model file is caught by the check whose business it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from serve.inference.verify import verify_file
from tests.support.tiny_model import tiny_model
from vssl.errors import InputError
from vssl.model.card import CARD_KEY, GOLDEN_KEY
from vssl.model.golden import Golden
from vssl.model.seal import sealed


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model.onnx")


def failed(path: Path) -> tuple[str, str]:
    last = verify_file(path)[-1]
    assert not last.passed
    return last.name, last.found


def metadata(proto: onnx.ModelProto, key: str) -> onnx.StringStringEntryProto:
    return next(entry for entry in proto.metadata_props if entry.key == key)


def without_seal(path: Path) -> onnx.ModelProto:
    proto = onnx.load(str(path))
    proto.metadata_props.remove(metadata(proto, "vssl.seal"))
    return proto


def test_a_sound_file_passes_every_check(model: Path) -> None:
    checks = verify_file(model)
    assert [check.name for check in checks] == [
        "seal",
        "card",
        "graph",
        "golden pair",
        "batch size",
        "variance",
    ]
    assert all(check.passed for check in checks)


def test_one_changed_weight_breaks_the_seal(model: Path) -> None:
    data = bytearray(model.read_bytes())
    place = data.find(onnx.load(str(model)).graph.initializer[0].raw_data)
    data[place] ^= 1
    model.write_bytes(bytes(data))
    assert failed(model)[0] == "seal"


def test_a_changed_weight_under_a_new_seal_breaks_the_golden_pair(model: Path) -> None:
    proto = without_seal(model)
    weight = proto.graph.initializer[0]
    weight.raw_data = (np.frombuffer(weight.raw_data, np.float32) * 1.1).tobytes()
    model.write_bytes(sealed(proto.SerializeToString()))
    assert failed(model)[0] == "golden pair"
    assert "mean differs" in failed(model)[1]


def test_an_edited_card_a_truncated_file_and_a_wrong_golden_output_are_caught(model: Path) -> None:
    good = model.read_bytes()
    proto = onnx.load_from_string(good)
    entry = metadata(proto, CARD_KEY)
    entry.value = entry.value.replace('"fp32"', '"int8"')
    model.write_bytes(proto.SerializeToString())
    assert failed(model)[0] == "seal"

    model.write_bytes(good[: len(good) // 2])
    assert failed(model)[0] == "seal"

    model.write_bytes(good)
    proto = without_seal(model)
    entry = metadata(proto, GOLDEN_KEY)
    golden = Golden.from_json(entry.value)
    golden.variance[0, 0] *= 1.5
    entry.value = golden.to_json()
    model.write_bytes(sealed(proto.SerializeToString()))
    assert failed(model)[0] == "golden pair"
    assert "log variance differs" in failed(model)[1]


def test_a_file_without_a_card_is_named_as_such(model: Path) -> None:
    proto = without_seal(model)
    proto.metadata_props.remove(metadata(proto, CARD_KEY))
    model.write_bytes(sealed(proto.SerializeToString()))
    assert failed(model)[0] == "card"


def test_an_absent_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model at"):
        verify_file(tmp_path / "absent.onnx")


def test_the_command_prints_each_check_and_exits_1_on_a_failure(model: Path) -> None:
    command = [sys.executable, "-m", "vssl", "verify", str(model)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert all(check["passed"] for check in json.loads(done.stdout)["checks"])
    model.write_bytes(model.read_bytes() + b" ")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("FAILED  seal")
    assert "do not serve it" in done.stderr
