"""What holds for all tests: each draws the same numbers in every run, whatever ran before it in its process.

Test processes share the cores, so no example of hypothesis fails for the time that it takes.

Files that take long come first: run side by side, with a file's tests kept together, one that began last would
keep one process busy while the others have nothing left to do.
"""

import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A shell's background job begins with Ctrl-C ignored, and the commands under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "shared-cores", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared-cores")

TESTS = Path(__file__).parent
LONG = [
    "vssl/cli/test_demo.py",
    "house/test_documents.py",
    "serve/test_service.py",
    "train/loop/test_synced_batchnorm.py",
    "export/test_package.py",
    "serve/page/test_manners.py",
    "serve/test_supervisor.py",
    "serve/inference/backends/test_triton_service.py",
    "train/loop/test_step.py",
    "export/evaluation/test_fidelity.py",
    "vssl/model/test_shipped.py",
    "export/calibration/test_head.py",
    "benchmarks/test_operations.py",
    "export/test_backbones.py",
    "vssl/cli/test_export.py",
    "serve/http/io/test_openapi.py",
    "benchmarks/test_gpu_train.py",
    "vssl/cli/test_export_repository.py",
]
"""Files of more than ten seconds, the longest first: `make test` with PYTEST_ADDOPTS=--durations=100 tells them."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Set torch's own generator back, before a test's fixtures are made."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of long files first, and leave the others in their order."""
    places = {TESTS / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))
