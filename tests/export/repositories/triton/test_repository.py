"""A model file becomes one version of a model in a Triton repository: whole, or not at all."""

from __future__ import annotations

import json
import shutil
import string
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.repositories.triton import repository
from export.repositories.triton.config import config_text, model_ids, quoted, with_version
from export.repositories.triton.repository import write_repository
from tests.support.tiny_model import tiny_model
from tests.support.triton_server import clients
from vssl.errors import ExistsError, FormatError, InputError
from vssl.images.preprocess import Preprocess
from vssl.model.card import ModelCard
from vssl.model.golden import Golden
from vssl.model.identity import sha256_file
from vssl.model.seal import read_metadata, sealed
from vssl.model.triton_parameters import from_parameters

CARD = ModelCard("pets", "vssl", "resnet18", "projector", 64, 512, Preprocess(size=224, resize=256))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model.onnx")


def parse(text: str) -> Any:
    """Read a configuration as Triton does: with its own message type."""
    from google.protobuf import text_format

    clients()
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse(text, model_config_pb2.ModelConfig())


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("backend", ["onnxruntime", "python"])
def test_the_layout_is_tritons_and_the_model_is_the_file_itself(
    model: Path, tmp_path: Path, backend: str
) -> None:
    entry = write_repository(model, tmp_path / "repository", backend=backend)
    assert (entry.path, entry.name, entry.version, entry.added) == (
        tmp_path / "repository" / "tiny-0",
        "tiny-0",
        1,
        True,
    )
    python = ["1/model.py"] if backend == "python" else []
    assert names(entry.path) == ["1/model.onnx", *python, "config.pbtxt"]
    assert (entry.path / "1" / "model.onnx").read_bytes() == model.read_bytes()
    assert entry.model_id == sha256_file(model)
    assert [p.name for p in (tmp_path / "repository").iterdir()] == ["tiny-0"]


@pytest.mark.parametrize(("backend", "kind"), [("onnxruntime", "KIND_AUTO"), ("python", "KIND_CPU")])
def test_the_configuration_parses_and_says_what_the_card_says(backend: str, kind: str) -> None:
    config = parse(config_text("pets", CARD, backend))
    (images,), outputs = config.input, {o.name: o for o in config.output}
    uint8, fp32 = (config.DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_name[n].number
                   for n in ("TYPE_UINT8", "TYPE_FP32"))  # fmt: skip
    assert (config.name, config.backend) == ("pets", backend)
    assert (images.name, images.data_type, list(images.dims)) == ("images", uint8, [224, 224, 3])
    assert {n: (o.data_type, list(o.dims)) for n, o in outputs.items()} == {
        "mean": (fp32, [64]),
        "variance": (fp32, [64]),
        "features": (fp32, [512]),
    }
    batching = config.dynamic_batching
    assert list(batching.preferred_batch_size) == [1, 2, 4, 8, 16]
    assert (config.max_batch_size, batching.max_queue_delay_microseconds) == (16, 500)
    (group,) = config.instance_group
    assert (group.count, group.Kind.Name(group.kind)) == (1, kind)
    assert [w.batch_size for w in config.model_warmup] == [1, 16]
    for warmup in config.model_warmup:
        tensor = warmup.inputs["images"]
        assert (tensor.data_type, list(tensor.dims), tensor.zero_data) == (uint8, [224, 224, 3], True)
    assert config.version_policy.latest.num_versions == 2


def test_card_golden_pair_and_model_id_travel_in_the_parameters(model: Path, tmp_path: Path) -> None:
    entry = write_repository(model, tmp_path / "r")
    config = parse((entry.path / "config.pbtxt").read_text())
    values = {key: value.string_value for key, value in config.parameters.items()}
    facts = from_parameters(values, 1, "here")
    held = read_metadata(model.read_bytes())
    assert facts.model_id == sha256_file(model)
    assert facts.card == ModelCard.from_json(held["vssl.card"])
    assert facts.golden.to_json() == Golden.from_json(held["vssl.golden"]).to_json()
    with pytest.raises(
        FormatError, match=r"carries no model card.*vssl.card.2.*vssl export model.onnx --triton"
    ):
        from_parameters(values, 2, "here")


@given(st.text())
def test_any_text_survives_as_json_in_a_parameter(text: str) -> None:
    written = with_version("", 3, "0" * 64, json.dumps(text), json.dumps([text]), keep=())
    values = parse(written).parameters
    assert json.loads(values["vssl.card.3"].string_value) == text
    assert json.loads(values["vssl.golden.3"].string_value) == [text]
    assert model_ids(written) == {3: "0" * 64}


@given(st.text(alphabet=string.ascii_letters + string.digits + string.punctuation + " "))
def test_any_printable_text_can_be_quoted(text: str) -> None:
    assert parse(f"name: {quoted(text)}").name == text


class TestVersions:
    def test_another_model_of_the_name_is_the_next_version(self, model: Path, tmp_path: Path) -> None:
        repository, other = tmp_path / "r", tiny_model(tmp_path / "other.onnx", seed=1)
        write_repository(model, repository, name="pets")
        entry = write_repository(other, repository, name="pets")
        assert (entry.version, entry.added) == (2, True)
        assert names(entry.path) == ["1/model.onnx", "2/model.onnx", "config.pbtxt"]
        config = parse((entry.path / "config.pbtxt").read_text())
        values = {key: value.string_value for key, value in config.parameters.items()}
        assert [from_parameters(values, v, "").card.name for v in (1, 2)] == ["tiny-0", "tiny-1"]

    def test_the_same_file_again_changes_nothing(self, model: Path, tmp_path: Path) -> None:
        first = write_repository(model, tmp_path / "r")
        before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
        again = write_repository(model, tmp_path / "r")
        assert (again.version, again.added, again.model_id) == (1, False, first.model_id)
        assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before

    def test_what_a_person_edited_stays(self, model: Path, tmp_path: Path) -> None:
        entry = write_repository(model, tmp_path / "r", name="pets")
        config = entry.path / "config.pbtxt"
        config.write_text("# two at once\n" + config.read_text().replace("count: 1", "count: 2"))
        write_repository(tiny_model(tmp_path / "b.onnx", seed=1), tmp_path / "r", name="pets")
        assert config.read_text().startswith("# two at once\n")
        assert parse(config.read_text()).instance_group[0].count == 2

    def test_a_version_that_was_removed_takes_its_parameters_with_it(
        self, model: Path, tmp_path: Path
    ) -> None:
        for seed in (0, 1):
            write_repository(tiny_model(tmp_path / f"{seed}.onnx", seed=seed), tmp_path / "r", name="pets")
        shutil.rmtree(tmp_path / "r" / "pets" / "1")
        entry = write_repository(tiny_model(tmp_path / "2.onnx", seed=2), tmp_path / "r", name="pets")
        assert entry.version == 3
        assert sorted(model_ids((entry.path / "config.pbtxt").read_text())) == [2, 3]


class TestRefusals:
    def test_a_model_of_another_shape_unless_it_may_replace(self, model: Path, tmp_path: Path) -> None:
        wide = tiny_model(tmp_path / "wide.onnx", dim=9)
        write_repository(model, tmp_path / "r", name="pets")
        with pytest.raises(
            ExistsError, match=r"its mean has the shape \[8\], the model's is \[9\].*--overwrite"
        ):
            write_repository(wide, tmp_path / "r", name="pets")
        assert (tmp_path / "r" / "pets" / "1" / "model.onnx").read_bytes() == model.read_bytes()
        entry = write_repository(wide, tmp_path / "r", name="pets", overwrite=True)
        assert entry.version == 1
        assert (entry.path / "1" / "model.onnx").read_bytes() == wide.read_bytes()
        assert [p.name for p in (tmp_path / "r").iterdir()] == ["pets"]

    def test_another_backend(self, model: Path, tmp_path: Path) -> None:
        write_repository(model, tmp_path / "r")
        with pytest.raises(ExistsError, match="its backend is onnxruntime, asked for is python"):
            write_repository(model, tmp_path / "r", backend="python")

    def test_a_model_that_is_not_ours(self, model: Path, tmp_path: Path) -> None:
        foreign = tmp_path / "r" / "tiny-0"
        foreign.mkdir(parents=True)
        (foreign / "config.pbtxt").write_text('name: "tiny-0"\nbackend: "onnxruntime"\n')
        with pytest.raises(ExistsError, match="not written by vssl"):
            write_repository(model, tmp_path / "r")
        assert write_repository(model, tmp_path / "r", overwrite=True).version == 1

    def test_a_folder_that_is_no_model_is_never_replaced(self, model: Path, tmp_path: Path) -> None:
        precious = tmp_path / "r" / "tiny-0" / "precious.txt"
        precious.parent.mkdir(parents=True)
        precious.write_text("mine")
        with pytest.raises(ExistsError, match="no model of a repository"):
            write_repository(model, tmp_path / "r", overwrite=True)
        assert precious.read_text() == "mine"

    @pytest.mark.parametrize("name", ["a/b", "..", "ä", "a b", "-a"])
    def test_a_name_that_triton_cannot_serve(self, model: Path, tmp_path: Path, name: str) -> None:
        with pytest.raises(InputError, match="--name NAME"):
            write_repository(model, tmp_path / "r", name=name)
        assert not (tmp_path / "r").exists()

    def test_a_damaged_a_missing_and_another_tool_s_model(self, model: Path, tmp_path: Path) -> None:
        data = bytearray(model.read_bytes())
        data[len(data) // 2] ^= 1
        (tmp_path / "damaged.onnx").write_bytes(data)
        with pytest.raises(FormatError, match=r"damaged.onnx: .*seal"):
            write_repository(tmp_path / "damaged.onnx", tmp_path / "r")
        with pytest.raises(InputError, match=r"absent\.onnx.*vssl export RUN model\.onnx"):
            write_repository(tmp_path / "absent.onnx", tmp_path / "r")
        (tmp_path / "foreign.onnx").write_bytes(sealed(b""))
        with pytest.raises(FormatError, match="carries no model card"):
            write_repository(tmp_path / "foreign.onnx", tmp_path / "r")
        with pytest.raises(InputError, match="expected one of onnxruntime, python"):
            write_repository(model, tmp_path / "r", backend="tensorrt")
        assert not (tmp_path / "r").exists()


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the writing of files of a name fail as it does on a full disk."""

    def fill(name: str) -> None:
        real = repository.write_bytes

        def failing(path: Path, content: bytes) -> None:
            if path.name == name:
                raise OSError(28, "No space left on device")
            real(path, content)

        monkeypatch.setattr(repository, "write_bytes", failing)

    return fill


@pytest.mark.parametrize("name", ["model.onnx", "model.py", "config.pbtxt"])
def test_a_new_model_that_cannot_be_written_whole_leaves_nothing(
    model: Path, tmp_path: Path, full_disk: Callable[[str], None], name: str
) -> None:
    full_disk(name)
    with pytest.raises(OSError, match="No space"):
        write_repository(model, tmp_path / "r", backend="python")
    assert list((tmp_path / "r").iterdir()) == []


@pytest.mark.parametrize("name", ["model.py", "config.pbtxt"])
def test_a_version_that_cannot_be_written_whole_leaves_the_others(
    model: Path, tmp_path: Path, full_disk: Callable[[str], None], name: str
) -> None:
    write_repository(model, tmp_path / "r", name="pets", backend="python")
    before = {p: p.read_bytes() for p in (tmp_path / "r").rglob("*") if p.is_file()}
    full_disk(name)
    other = tiny_model(tmp_path / "b.onnx", seed=1)
    with pytest.raises(OSError, match="No space"):
        write_repository(other, tmp_path / "r", name="pets", backend="python")
    assert {p: p.read_bytes() for p in (tmp_path / "r").rglob("*") if p.is_file()} == before


def test_an_existing_file_needs_no_torch(model: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from export.repositories.triton.repository import write_repository; "
        f"write_repository(Path({str(model)!r}), Path({str(tmp_path / 'r')!r})); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'onnx', 'onnxruntime', 'google.protobuf')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
