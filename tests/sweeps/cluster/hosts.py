"""Hosts on one machine: each in network, PID, mount, UTS and IPC namespaces of its own, with an sshd.

All of them, and the laptop that commands them, live in the namespaces of one process, which dies with pytest,
however that ends; then the kernel takes every process, mount and link with it. Nothing outside is reached.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tests.sweeps.conftest import PATIENCE, ROOT, eventually

HERE = Path(__file__).parent
PROGRAMS = ("ip", "nsenter", "rsync", "setpriv", "ssh", "ssh-keygen", "unshare", "/usr/sbin/sshd")
UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child")


def missing() -> str | None:
    """Why hosts cannot be made here; null where they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts in namespaces need root on Linux"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"hosts in namespaces need {', '.join(absent)}: openssh-server openssh-client rsync iproute2"
    if importlib.util.find_spec("aiohttp_cors") is None:
        return "ray up needs the extra: pip install -e '.[cluster]'"
    if subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], check=False).returncode:
        return "this container may not make namespaces"
    return None


class Hosts:
    """Hosts by name, each with an address, and the laptop that reaches them by ssh.

    Args:
        folder: for keys, logs and the laptop's home.
        network: the first three octets of all addresses; the laptop's ends in 1.
        first: the last octet of the first host's.
        told: what the laptop's environment holds beside.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        network: str = "10.77.0",
        first: int = 11,
        told: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.laptop, self._told = folder, f"{network}.1", dict(told or {})
        self.addresses = {name: f"{network}.{at}" for at, name in enumerate(names, start=first)}
        self.key, self.home = folder / "key", folder / "home"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._world = subprocess.Popen(
            [
                "setpriv",
                "--pdeathsig=KILL",
                "unshare",
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "sleep",
                "infinity",
            ]
        )
        eventually(lambda: psutil.Process(self._world.pid).children(), "namespaces are made")
        first = psutil.Process(self._world.pid).children()[0].pid
        self._enter = ["nsenter", f"--target={first}", "--net", "--mount", "--pid"]
        self.home.mkdir()
        (folder / "tmp").mkdir()
        for name in names:
            (folder / f"root-{name}").mkdir(mode=0o700)  # the host's disk, which outlives its power
        for name in ("key", "hostkey"):
            subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", folder / name], check=True)
        lines = [f"{address} {name}\n" for name, address in self.addresses.items()]
        (folder / "hosts").write_text("".join(lines), encoding="ascii")
        for command in (
            "mkdir -p /run/netns",
            "mount -t tmpfs tmpfs /run/netns",
            "ip link set lo up",
            "ip link add bridge type bridge",
            f"ip addr add {self.laptop}/24 dev bridge",
            "ip link set bridge up",
        ):
            self.run(*command.split())

    def close(self) -> None:
        """Takes everything away."""
        for child in psutil.Process(self._world.pid).children():
            child.kill()
        self._world.wait(PATIENCE)
        for process in self._running.values():
            process.wait(PATIENCE)

    @property
    def environment(self) -> dict[str, str]:
        """The laptop's: a home of its own, and nothing of another Ray's."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        temporary = str(self.folder / "tmp")
        return kept | {
            "HOME": str(self.home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_MODE": "token",
            "RAY_TMPDIR": temporary,
            "RAY_USAGE_STATS_ENABLED": "0",
            "TMPDIR": temporary,
            **self._told,
        }

    def start(
        self, *command: str, log: Path | None = None, extra: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """A command on the laptop, its output in a file if so asked."""
        file = open(log, "wb") if log else None  # noqa: SIM115 - the process holds it
        try:
            return subprocess.Popen(
                [*self._enter, "env", "-C", str(ROOT), *command],
                stdin=subprocess.DEVNULL,
                stdout=file or subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self.environment | dict(extra or {}),
                start_new_session=True,
            )
        finally:
            if file:
                file.close()

    def run(self, *command: str, code: int | None = 0, extra: Mapping[str, str] | None = None) -> str:
        """A command on the laptop, to its end; what it printed. Its exit code is held to `code`."""
        process = self.start(*command, extra=extra)
        output, _ = process.communicate(timeout=PATIENCE)
        said = output.decode()
        assert code is None or process.returncode == code, f"{command}: {process.returncode}\n{said}"
        return said

    def ssh(self, name: str, command: str) -> list[str]:
        """The command that runs another one on a host, as its user's shell would."""
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=5")
        flags = [flag for option in options for flag in ("-o", option)]
        where = f"root@{self.addresses[name]}"
        return ["ssh", "-q", "-i", str(self.key), *flags, where, f"source ~/.bashrc; {command}"]

    def on(self, name: str, command: str, code: int | None = 0) -> str:
        """A command on a host, to its end; what it printed."""
        return self.run(*self.ssh(name, command), code=code)

    def boot(self, name: str) -> None:
        """Wires the host up and starts its first process."""
        space, address = f"host-{name}", self.addresses[name]
        for command in (
            f"ip netns add {space}",
            f"ip link add v-{name} type veth peer name eth0 netns {space}",
            f"ip link set v-{name} master bridge up",
            f"ip -n {space} link set lo up",
            f"ip -n {space} addr add {address}/24 dev eth0",
            f"ip -n {space} link set eth0 up",
        ):
            self.run(*command.split())
        within = [*UNSHARE, "--uts", "--ipc"]
        told = {"FOLDER": self.folder, "ROOT": ROOT, "VENV": sys.prefix, "PYBASE": sys.base_prefix}
        self._running[name] = self.start(
            *("ip", "netns", "exec", space, *within, str(HERE / "host-init.sh"), name, address),
            log=self.folder / f"{name}.log",
            extra={key: str(value) for key, value in told.items()},
        )
        eventually(lambda: self.run(*self.ssh(name, "echo up"), code=None) == "up\n", f"{name} is up")

    def power_off(self, name: str) -> None:
        """A power cut: SIGKILL to everything on the host, and its link is gone."""
        process = psutil.Process(self._running.pop(name).pid)
        for child in [*process.children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):  # it has gone with another
                child.kill()
        self.run("ip", "link", "del", f"v-{name}", code=None)
        self.run("ip", "netns", "del", f"host-{name}", code=None)

    def cut(self, name: str) -> None:
        """The host's link is down."""
        self.run("ip", "link", "set", f"v-{name}", "down")

    def mend(self, name: str) -> None:
        """The host's link is up again."""
        self.run("ip", "link", "set", f"v-{name}", "up")

    def unsent(self, name: str, process: str) -> int:
        """Bytes that such processes on a host have sent to another and that have not come through.

        What they tell the GCS, of themselves and not of their work, is left out.
        """
        said = self.run("ip", "netns", "exec", f"host-{name}", "ss", "-tnpHO")
        rows = [line.split() for line in said.splitlines() if process in line]
        return sum(int(row[2]) for row in rows if not row[4].endswith(":6379"))
