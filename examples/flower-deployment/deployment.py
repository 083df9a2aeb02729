"""A SuperLink and SuperNodes on 127.0.0.1, with TLS and node authentication; every process is stopped by its own id."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Self

from certificates import make_certificates, make_node_key

HOST = "127.0.0.1"
ONE_PORT = tuple(int(part) for part in version("flwr").split(".")[:2]) >= (1, 41)
"""Whether a SuperLink serves nodes, users and its apps on one port over HTTP, or on three over gRPC as it did before."""

ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray, if anything starts it, then listens on the loopback only
    "PYTHONWARNINGS": "ignore",
}


class Deployment:
    """Flower's processes and their files, all under one folder.

    Args:
        folder: Certificates, keys, logs and Flower's own home.
        app: The Flower app's folder.
    """

    def __init__(self, folder: Path, app: Path) -> None:
        self.folder, self.app = folder, app
        self.port = free_port()
        self.control_port = self.port if ONE_PORT else free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**os.environ, **ENVIRONMENT, "FLWR_HOME": str(folder / "flwr"), "PATH": path}

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        stop([self._processes.pop(name) for name in reversed(list(self._processes))], signal.SIGTERM)

    def _begin(self) -> None:
        make_certificates(self.folder)
        (self.folder / "flwr").mkdir()
        (self.folder / "flwr" / "config.toml").write_text(
            f'[superlink]\ndefault = "demo"\n\n[superlink.demo]\naddress = "{HOST}:{self.control_port}"\n'
            f'root-certificates = "{self.folder / "ca.pem"}"\n'
        )
        self.start_superlink()

    def start_superlink(self) -> None:
        """Start the SuperLink; one that is started again finds its nodes and runs in its database."""
        command = [
            "flower-superlink",
            "--enable-supernode-auth",
            "--database",
            str(self.folder / "superlink.db"),
        ]
        if ONE_PORT:
            command += ["--host", HOST, "--port", str(self.port), "--disable-runtime-dependency-installation"]
        else:
            ports = {"fleet": self.port, "control": self.control_port, "serverappio": free_port()}
            for api, port in ports.items():
                command += [f"--{api}-api-address", f"{HOST}:{port}"]
        for option, name in (
            ("certfile", "server.pem"),
            ("keyfile", "server.key"),
            ("ca-certfile", "ca.pem"),
        ):
            command += [f"--ssl-{option}", str(self.folder / name)]
        self._start("superlink", command)
        self._wait_for_port("superlink", self.control_port)

    def add_node(self, name: str, config: str) -> None:
        """Register a node's public key, then start the node."""
        key = self.folder / name
        self.flwr("supernode", "register", str(make_node_key(key)), "demo")
        command = ["flower-supernode", "--superlink", f"{HOST}:{self.port}"]
        if ONE_PORT:
            command += ["--host", HOST, "--port", str(free_port())]
        else:
            command += ["--clientappio-api-address", f"{HOST}:{free_port()}"]
        command += ["--root-certificates", str(self.folder / "ca.pem")]
        self._start(name, [*command, "--auth-supernode-private-key", str(key), "--node-config", config])

    def flwr(self, *arguments: str) -> str:
        """Run one of Flower's commands and return what it prints."""
        return run(["flwr", *arguments], cwd=self.app, env=self._environment)

    def runs(self) -> list[dict[str, object]]:
        """Return Flower's record of each run, the latest last. The exit code of `flwr run` says nothing: it is 0 for a failed run."""
        runs = json.loads(self.flwr("list", "demo", "--format", "json"))["runs"]
        return sorted(runs, key=lambda run: str(run["pending-at"]))

    def kill(self, name: str) -> None:
        """Kill a process and all that it has started, as a power cut would."""
        stop([self._processes.pop(name)], signal.SIGKILL)

    def _start(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd=self.folder,
                start_new_session=True,
            )

    def _wait_for_port(self, name: str, port: int, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._processes[name].poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1.0):
                return
            time.sleep(0.2)
        log = (self.folder / f"{name}.log").read_text()[-2000:]
        raise RuntimeError(f"{name} does not listen on {HOST}:{port}. The end of its log:\n{log}")


def stop(processes: list[subprocess.Popen[bytes]], how: signal.Signals) -> None:
    """Signal processes and wait for their end; whatever is left of them and their descendants after ten seconds is killed."""
    # Before they lose their parents:
    families = {process.pid: descendants(process.pid) for process in processes}
    for process in processes:
        for pid in [process.pid, *families[process.pid]] if how == signal.SIGKILL else [process.pid]:
            _signal(pid, how)
    deadline = time.monotonic() + 10.0
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(deadline - time.monotonic(), 0.0))
        for pid in [process.pid, *families[process.pid]] if process.poll() is None else families[process.pid]:
            _signal(pid, signal.SIGKILL)
        process.wait()


def descendants(pid: int) -> list[int]:
    """Return the ids of a process's children and of theirs. Some of Flower's lead groups of their own."""
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            parents[int(file.parent.name)] = int(file.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for each in found:  # grows while it is gone through
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def _signal(pid: int, how: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def run(command: list[str], **options: object) -> str:
    """Run a command; return its output, or raise with all it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout
