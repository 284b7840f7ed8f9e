"""Settings <-> VSSL_* variables."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.http.settings import Settings
from vssl.errors import InputError
from vssl.model.shipped import shipped_model


@given(
    st.builds(
        Settings,
        model=st.sampled_from(["/m.onnx", "triton://h:8001/m"]),
        gallery=st.sampled_from([None, Path("/g")]),
        threads=st.one_of(st.none(), st.integers(1, 64)),
        workers=st.integers(1, 64),
        max_risk=st.one_of(st.none(), st.floats(0.001, 0.999)),
        show_images=st.booleans(),
        max_items=st.integers(1, 10_000),
        deadline_s=st.floats(0.001, 1e6),
        drain_s=st.floats(0, 1e6),
        keep_alive_s=st.integers(1, 10_000),
        tracing=st.booleans(),
        metrics_folder=st.sampled_from([None, Path("/counts")]),
        log=st.sampled_from(["text", "json", "off"]),
    )
)
def test_settings_survive_the_environment(settings: Settings) -> None:
    assert Settings.from_environment(settings.to_environment()) == settings


def test_without_a_model_the_packages_own_is_served() -> None:
    assert Settings.from_environment({}).model == str(shipped_model())


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("VSSL_MAX_ITEMS", "0"),
        ("VSSL_MAX_ITEMS", "many"),
        ("VSSL_THREADS", "0"),
        ("VSSL_DEADLINE_S", "-1"),
        ("VSSL_DEADLINE_S", "nan"),
        ("VSSL_DRAIN_S", "-0.5"),
        ("VSSL_KEEP_ALIVE_S", "0.5"),
        ("VSSL_SHOW_IMAGES", "perhaps"),
        ("VSSL_LOG", "loud"),
        ("VSSL_MAX_PIXELS", "1000000000"),
    ],
)
def test_wrong_values_are_named(variable: str, value: str) -> None:
    with pytest.raises(InputError, match=variable):
        Settings.from_environment({"VSSL_MODEL": "m.onnx", variable: value})
