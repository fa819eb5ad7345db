"""Two machines on one, for tests, as root: network namespaces and a cable that can be cut."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.ranks import ROOT

PORT = 29511  # of the first machine, which nobody else is on


def run_ip(*words: str) -> None:
    """One command of `ip`."""
    subprocess.run(["ip", *words], check=True, capture_output=True, encoding="utf-8")


class Machines:
    """Two of them, 10.77.0.1 and 10.77.0.2, by number."""

    def __init__(self, tag: str) -> None:
        self.names = [f"{tag}a", f"{tag}b"]
        self.links = [f"{tag}v", f"{tag}w"]

    def connect(self) -> None:
        """Make the machines and the cable between them."""
        for name in self.names:
            run_ip("netns", "add", name)
        first, second = self.links
        run_ip("link", "add", first, "type", "veth", "peer", "name", second)
        for number, (name, link) in enumerate(zip(self.names, self.links, strict=True), start=1):
            run_ip("link", "set", link, "netns", name)
            run_ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", link)
            run_ip("-n", name, "link", "set", link, "up")
            run_ip("-n", name, "link", "set", "lo", "up")

    def plug(self, state: str) -> None:
        """Cut the cable ("down"), or mend it ("up")."""
        run_ip("-n", self.names[1], "link", "set", self.links[1], state)

    def torchrun(self, number: int, *words: str, size: int = 1, backend: str = "static"):
        """torchrun with `size` processes on machine 0 or 1, of two machines."""
        meeting = ["--master-addr", "10.77.0.1", "--master-port", str(PORT)]
        if backend == "c10d":
            meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"10.77.0.1:{PORT}"]
            meeting += ["--local-addr", f"10.77.0.{number + 1}"]
            meeting += ["--rdzv-conf", f"is_host={number == 0}"]  # both have one name
        return subprocess.Popen(
            [
                "ip", "netns", "exec", self.names[number], sys.executable, "-m",
                "torch.distributed.run", "--nnodes", "2", "--node-rank", str(number), *meeting,
                "--nproc-per-node", str(size), "train.py", *words,
            ],
            cwd=ROOT, encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": self.links[number]},
        )  # fmt: skip

    def remove(self) -> None:
        """Take down what was made, of it whatever is there."""
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def why_not() -> str | None:
    """Why no machines can be had here; None where they can."""
    if os.geteuid() != 0:
        return "needs root: network namespaces"
    if shutil.which("ip") is None:
        return "needs `ip` (iproute2)"
    probe = ["ip", "netns", "add", f"olp{os.getpid()}"]
    if subprocess.run(probe, capture_output=True).returncode:
        return "this system gives no network namespaces"
    subprocess.run(["ip", "netns", "del", probe[-1]], capture_output=True)
    return None


@contextmanager
def two_machines() -> Iterator[Machines]:
    """Two machines, as long as the block runs. Skips the test where none can be had."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    machines = Machines(f"ol{os.getpid() % 100000}")
    try:
        machines.connect()
        yield machines
    finally:
        machines.remove()
