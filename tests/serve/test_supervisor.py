"""A supervisor from outside: how it drains a server, ends it, and what happens when either of them is killed."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from serve.supervisor import VARIABLE, follow_supervisor, is_supervised, supervise
from tests.serve.http.conftest import encoded
from tests.serve.running import PATIENCE_S, Running, family, get, post, running, until, workers_of
from tests.support.tiny_model import tiny_model

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets and signals")

LONG_S = "600"  # a drain time that no test waits out

CHILD = """
import sys, threading
from serve.supervisor import follow_supervisor
drained = threading.Event()
follow_supervisor(drained.set)
print("started", flush=True)
drained.wait()
print("drained", flush=True)
{then}
"""

PARENT = """
import os, sys
from pathlib import Path
from serve.supervisor import supervise
command = [sys.executable, "-c", sys.argv[1]]
sys.exit(supervise(command, os.environ, folder=Path(sys.argv[2]), drain_s=float(sys.argv[3])))
"""


def supervised(then: str, folder: Path, drain_s: str = LONG_S) -> subprocess.Popen[str]:
    """Start a supervisor of a process that prints what it hears and, once drained, runs `then`."""
    command = [sys.executable, "-c", PARENT, CHILD.format(then=then), str(folder), drain_s]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


# --- any process under a supervisor ----------------------------------------------------


@pytest.mark.parametrize(("then", "status"), [("sys.exit(0)", 0), ("sys.exit(3)", 3)])
def test_sigterm_drains_and_the_status_is_the_servers(tmp_path: Path, then: str, status: int) -> None:
    with supervised(then, tmp_path) as parent:
        assert line(parent) == "started"
        parent.send_signal(signal.SIGTERM)
        assert line(parent) == "drained"
        assert parent.wait(timeout=PATIENCE_S) == status


@pytest.mark.parametrize(
    ("drain_s", "signals"),
    [("0.1", [signal.SIGTERM]), (LONG_S, [signal.SIGTERM, signal.SIGTERM]), (LONG_S, [signal.SIGTERM, signal.SIGINT])],
    ids=["after the drain time", "at a second SIGTERM", "at SIGINT"],
)  # fmt: skip
def test_a_drain_ends_with_sigterm_to_the_server(
    tmp_path: Path, drain_s: str, signals: list[signal.Signals]
) -> None:
    with supervised("threading.Event().wait()", tmp_path, drain_s) as parent:
        assert line(parent) == "started"
        parent.send_signal(signals[0])
        assert line(parent) == "drained"
        for further in signals[1:]:
            parent.send_signal(further)
        assert parent.wait(timeout=PATIENCE_S) == 0


def test_sigint_ends_the_server_without_a_drain(tmp_path: Path) -> None:
    with supervised("", tmp_path) as parent:
        assert line(parent) == "started"
        parent.send_signal(signal.SIGINT)
        assert line(parent) == ""  # the end of its output
        assert parent.wait(timeout=PATIENCE_S) == 0


def test_a_process_that_connects_while_the_server_drains_hears_of_it(tmp_path: Path) -> None:
    then = "again = threading.Event(); follow_supervisor(again.set); again.wait(); print('again', flush=True)"
    with supervised(then, tmp_path) as parent:
        assert line(parent) == "started"
        parent.send_signal(signal.SIGTERM)
        assert [line(parent), line(parent)] == ["drained", "again"]
        assert parent.wait(timeout=PATIENCE_S) == 0


def test_a_killed_supervisor_takes_its_processes_along(tmp_path: Path) -> None:
    with supervised("", tmp_path) as parent:
        assert line(parent) == "started"
        (child,) = psutil.Process(parent.pid).children()
        parent.kill()
        assert line(parent) == ""
        psutil.wait_procs([child], timeout=PATIENCE_S)
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_process_whose_supervisor_is_gone_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone"))
    assert is_supervised()
    with pytest.raises(FileNotFoundError):
        follow_supervisor()


def test_without_a_supervisor_nothing_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    before = set(threading.enumerate())
    follow_supervisor()
    assert not is_supervised()
    assert set(threading.enumerate()) <= before  # others may end meanwhile


def test_a_command_that_ends_by_itself_ends_its_supervisor(tmp_path: Path) -> None:
    assert (
        supervise([sys.executable, "-c", "raise SystemExit(7)"], os.environ, folder=tmp_path, drain_s=60) == 7
    )
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert supervise([sys.executable, "-c", kill], os.environ, folder=tmp_path, drain_s=60) == 128 + 9


# --- vssl serve ------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model.onnx")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_drain_loses_no_request_of_clients_that_watch_for_it(
    tmp_path: Path, model: Path, workers: int
) -> None:
    """Half of the clients end with an answer that says `Connection: close`, half watch /readyz."""
    options = ["--model", str(model), "--workers", str(workers), "--threads", "1"]
    with running(options, tmp_path, environment={"VSSL_DRAIN_S": LONG_S}) as server:
        assert len(workers_of(server, workers)) == workers
        outcome: Counter[str] = Counter()
        ready = threading.Event()
        ready.set()
        clients = [Client(server, outcome, until_closed) for _ in range(8)]
        clients += [Client(server, outcome, lambda _: not ready.is_set()) for _ in range(8)]
        for client in clients:
            client.start()
        until(lambda: outcome["200"] > 100)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: not_ready(server))
        ready.clear()
        for client in clients:
            client.join(timeout=PATIENCE_S)
        assert server.terminate() == 0  # a second SIGTERM: all clients have gone elsewhere
    assert set(outcome) == {"200"}


class Client(threading.Thread):
    """Posts an image again and again, on one connection for as long as the server keeps it."""

    def __init__(
        self, server: Running, outcome: Counter[str], enough: Callable[[http.client.HTTPResponse], bool]
    ) -> None:
        super().__init__(daemon=True)
        self._address = server.url.removeprefix("http://")
        self._outcome, self._enough = outcome, enough

    def run(self) -> None:
        """Post until an answer, or a broken connection, is enough."""
        with contextlib.closing(http.client.HTTPConnection(self._address, timeout=PATIENCE_S)) as connection:
            self._post(connection)

    def _post(self, connection: http.client.HTTPConnection) -> None:
        data = encoded(1)
        while True:
            try:
                connection.request("POST", "/embed", data)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                self._outcome[type(error).__name__] += 1
                return
            self._outcome[str(answer.status)] += 1
            if self._enough(answer):
                return


def until_closed(answer: http.client.HTTPResponse) -> bool:
    return answer.getheader("Connection") == "close"


def not_ready(server: Running) -> bool:
    """Whether several questions, which reach all workers, find a server that is not ready."""
    return all(get(f"{server.url}/readyz").status_code == 503 for _ in range(8))


def test_a_draining_server_says_so_and_still_answers(tmp_path: Path, model: Path) -> None:
    with running(["--model", str(model)], tmp_path, environment={"VSSL_DRAIN_S": LONG_S}) as server:
        assert "connection" not in post(f"{server.url}/embed", content=encoded(1)).headers
        server.process.send_signal(signal.SIGTERM)
        until(lambda: not_ready(server))
        for path in ("/readyz", "/v2/health/ready"):
            ready = get(f"{server.url}{path}")
            assert (ready.status_code, ready.headers["connection"]) == (503, "close")
            assert int(ready.headers["retry-after"]) >= 1
        embedded = post(f"{server.url}/embed", content=encoded(1))
        assert (embedded.status_code, embedded.headers["connection"]) == (200, "close")
        assert get(f"{server.url}/livez").status_code == 200


def test_an_answer_before_the_body_was_read_leaves_the_connection_open_while_draining(
    tmp_path: Path, model: Path
) -> None:
    """Closed with unread bytes, the connection would be reset, and the client might miss the answer."""
    environment = {"VSSL_DRAIN_S": LONG_S, "VSSL_MAX_BODY_BYTES": "100000"}
    with running(["--model", str(model)], tmp_path, environment=environment) as server:
        server.process.send_signal(signal.SIGTERM)
        until(lambda: not_ready(server))
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=PATIENCE_S)
        connection.request("POST", "/embed", b"x" * 8_000_000)
        refused = connection.getresponse()
        assert (refused.status, refused.getheader("Connection")) == (413, None)
        assert json.loads(refused.read())["error"]["code"] == "too_many_bytes"
        connection.request("POST", "/embed", encoded(1))  # on the same connection
        answer = connection.getresponse()
        answer.read()
        assert (answer.status, answer.getheader("Connection")) == (200, "close")
        connection.close()


@pytest.mark.parametrize("killed", ["supervisor", "BentoML"])
def test_no_process_outlives_a_server_that_was_killed(tmp_path: Path, model: Path, killed: str) -> None:
    options = ["--model", str(model), "--workers", "2", "--threads", "1"]
    with running(options, tmp_path) as server:
        workers_of(server, 2)
        everyone = family(server)
        (bentoml,) = psutil.Process(server.process.pid).children()
        (server.process if killed == "supervisor" else bentoml).kill()
        assert server.process.wait(timeout=PATIENCE_S) != 0
        _, alive = psutil.wait_procs(everyone, timeout=PATIENCE_S)
        for process in alive:
            process.kill()
        assert not alive
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", int(server.url.rpartition(":")[2])))
