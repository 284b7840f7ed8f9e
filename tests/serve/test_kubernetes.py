"""docs/how-to/kubernetes.yaml asks the service for what it has: its routes, its settings, its metrics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve.http.app import OPEN_PATHS, ROUTES
from serve.http.metrics import HELP
from serve.http.settings import Settings

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "kubernetes.yaml"


@pytest.fixture
def objects() -> dict[str, Any]:
    """The example's objects by kind."""
    return {found["kind"]: found for found in yaml.safe_load_all(EXAMPLE.read_text())}


@pytest.fixture
def container(objects: dict[str, Any]) -> dict[str, Any]:
    (container,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    return container  # type: ignore[no-any-return]


def test_probes_ask_routes_that_need_no_key(container: dict[str, Any]) -> None:
    probes = {
        name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("readiness", "liveness", "startup")
    }
    assert probes == {"readiness": "/readyz", "liveness": "/livez", "startup": "/readyz"}
    assert set(probes.values()) <= {route.path for route in ROUTES if route.method == "GET"} & OPEN_PATHS


def test_variables_are_settings_of_the_service(objects: dict[str, Any], container: dict[str, Any]) -> None:
    settings = Settings.from_environment({v["name"]: v["value"] for v in container["env"]})
    assert {v["name"] for v in container["env"]} <= set(settings.to_environment())
    grace = objects["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    _, wait = container["lifecycle"]["preStop"]["exec"]["command"]
    assert grace > float(wait) + settings.deadline_s


def test_it_scales_on_the_queue_that_the_service_measures(objects: dict[str, Any]) -> None:
    (metric,) = objects["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert HELP[metric["pods"]["metric"]["name"]][0] == "gauge"
    target = objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", objects["Deployment"]["metadata"]["name"])


def test_requests_find_the_pods(objects: dict[str, Any], container: dict[str, Any]) -> None:
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert objects["Service"]["spec"]["selector"].items() <= labels.items()
    (port,) = objects["Service"]["spec"]["ports"]
    assert port["targetPort"] in {p["name"] for p in container["ports"]}
    annotations = objects["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] in {route.path for route in ROUTES}


def test_the_deployment_page_names_only_variables_and_metrics_that_exist() -> None:
    text = (EXAMPLE.parent / "deployment.md").read_text() + EXAMPLE.read_text()
    known = {f"VSSL_{name.upper()}" for name in Settings.__dataclass_fields__} | {"VSSL_REQUIRE_TRITON"}
    assert set(re.findall(r"VSSL_[A-Z_]+", text)) <= known
    assert set(re.findall(r"\bvssl_[a-z_]+\b", text)) <= set(HELP)
