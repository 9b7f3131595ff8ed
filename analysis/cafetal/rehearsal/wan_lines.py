"""A wide-area network on one machine: network namespaces, and between them lines with delay, bandwidth and cuts.

Each node is a namespace with one TUN device; a process of ours takes each packet out of one and puts it into another
when it would have arrived (Linux's own netem is not in every kernel). Nothing is added to the network of the machine
itself, so a node is needed for the user's machine too. Making namespaces needs root.

``python -m cafetal.rehearsal.wan_lines NAME SPEC``, as `Wan` starts it, reads changes of the lines from its standard
input, and takes the namespaces away when that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import IO

from cafetal.errors import RehearsalError

_SUBNET = "10.77.0"
"""Inside the namespaces only."""
_MTU = 9000
_QUEUE = 0.3
"""Seconds that a packet may wait for its turn on a line; a router drops what would have to wait longer."""
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
"""Of <linux/if_tun.h>."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line between two nodes, the same in both directions."""

    delay: float = 0.015
    """Seconds from one end to the other; a round trip takes twice as long."""
    rate: float = 100e6
    """Bits a second in each direction."""
    up: bool = True


class Queue:
    """One direction of a line: when does a packet arrive?"""

    def __init__(self, line: Line) -> None:
        self.line = line
        self._free = 0.0

    def arrival(self, now: float, size: int) -> float | None:
        """For a packet of ``size`` bytes that is sent now; ``None``: it is lost."""
        begins = max(now, self._free)
        if not self.line.up or begins - now > _QUEUE:
            return None
        self._free = begins + size * 8 / self.line.rate
        return self._free + self.line.delay


def available() -> str | None:
    """Why there can be no WAN on this machine; ``None`` if there can."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    if shutil.which("ip") is None:
        return "`ip` is not installed (Debian's iproute2)"
    return None if os.path.exists("/dev/net/tun") else "the kernel has no TUN devices (/dev/net/tun)"


class Wan:
    """Nodes that reach each other over lines; a context manager.

    Args:
        nodes: names; each gets a namespace.
        line: what each pair of nodes has between them.

    Raises:
        RehearsalError: if it cannot be made here.
    """

    def __init__(self, nodes: Sequence[str], line: Line = Line()) -> None:
        reason = available()
        if reason is not None:
            raise RehearsalError(f"No WAN can be set up on this machine: {reason}.")
        self.nodes, self.line = tuple(nodes), line
        self.name = f"wan{os.getpid()}"
        self.counts: dict[str, int] = {}
        """``{"a>b": bytes}`` that have gone over each line, once it is closed."""

    def __enter__(self) -> Wan:
        spec = json.dumps({"nodes": self.nodes, "line": asdict(self.line)})
        command = [sys.executable, "-P", "-m", "cafetal.rehearsal.wan_lines", self.name, spec]
        self._switch = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._switch.stdout is not None
        if self._switch.stdout.readline().strip() != "ready":
            self._switch.wait()
            raise RehearsalError("The WAN could not be set up; the messages above say why.")
        return self

    def address(self, node: str) -> str:
        """Return the node's IP address, for the other nodes."""
        return _address(self.nodes.index(node))

    def inside(self, node: str) -> list[str]:
        """Return what to put before a command that is to run at a node."""
        return ["ip", "netns", "exec", self.namespace(node)]

    def namespace(self, node: str) -> str:
        """Return the name of the node's network namespace."""
        return f"{self.name}-{node}"

    def change(self, one: str, other: str, line: Line) -> None:
        """Give a pair of nodes another line; what is on its way still arrives."""
        assert self._switch.stdin is not None
        self._switch.stdin.write(json.dumps({"between": [one, other], "line": asdict(line)}) + "\n")
        self._switch.stdin.flush()

    def cut(self, node: str) -> None:
        """Take a node off the net: what is sent to it or by it is lost, as in a black hole."""
        for other in self.nodes:
            if other != node:
                self.change(node, other, Line(self.line.delay, self.line.rate, up=False))

    def mend(self, node: str) -> None:
        """Give a node the lines back that it had."""
        for other in self.nodes:
            if other != node:
                self.change(node, other, self.line)

    def __exit__(self, *_: object) -> None:
        assert self._switch.stdout is not None
        with contextlib.suppress(subprocess.TimeoutExpired, ValueError):
            output, _errors = self._switch.communicate(timeout=20)
            self.counts = json.loads(output or "{}")
        self._switch.kill()
        self._switch.wait()


# --- the process that moves the packets -----------------------------------------------------------------------------


def _address(number: int) -> str:
    return f"{_SUBNET}.{number + 1}"


def main(arguments: Sequence[str]) -> None:
    """Make the namespaces, move packets until the standard input ends, and take the namespaces away."""
    name, spec = arguments[0], json.loads(arguments[1])
    nodes: list[str] = spec["nodes"]
    try:
        devices = {node: _make_node(f"{name}-{node}", number) for number, node in enumerate(nodes)}
        print("ready", flush=True)
        counts = _switch(devices, Line(**spec["line"]))
        print(json.dumps(counts), flush=True)
    finally:
        for node in nodes:
            subprocess.run(["ip", "netns", "del", f"{name}-{node}"], check=False, stderr=subprocess.DEVNULL)


def _make_node(namespace: str, number: int) -> int:
    """Make a namespace with a TUN device; return the device's descriptor."""
    device = f"{namespace[:13]}{number}"  # no more than 15 characters
    handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(handle, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _IFF_TUN | _IFF_NO_PI))
    inside = ["ip", "-n", namespace]
    for command in (
        ["ip", "netns", "add", namespace],
        ["ip", "link", "set", device, "netns", namespace],
        [*inside, "link", "set", "lo", "up"],
        [*inside, "addr", "add", f"{_address(number)}/24", "dev", device],
        [*inside, "link", "set", device, "mtu", str(_MTU), "txqueuelen", "1000", "up"],
    ):
        subprocess.run(command, check=True)
    return handle


def _switch(devices: Mapping[str, int], line: Line) -> dict[str, int]:
    names = list(devices)
    queues = {(one, other): Queue(line) for one in names for other in names if one != other}
    by_address = {socket.inet_aton(_address(number)): name for number, name in enumerate(names)}
    by_handle = {handle: name for name, handle in devices.items()}
    counts = {f"{one}>{other}": 0 for one, other in queues}
    flying: list[tuple[float, int, str, bytes]] = []
    number = 0
    poll = select.epoll()
    for handle in (*by_handle, sys.stdin.fileno()):
        poll.register(handle, select.EPOLLIN)
    while True:
        ready = poll.poll(max(0.0, flying[0][0] - time.monotonic()) if flying else None)
        now = time.monotonic()
        for handle, _ in ready:
            if handle not in by_handle:
                if not _change(queues, sys.stdin):
                    return counts
                continue
            for packet in _packets(handle):
                target = by_address.get(packet[16:20])
                queue = queues.get((by_handle[handle], target or ""))
                when = None if queue is None else queue.arrival(now, len(packet))
                if when is not None and target is not None:
                    number += 1
                    counts[f"{by_handle[handle]}>{target}"] += len(packet)
                    heapq.heappush(flying, (when, number, target, packet))
        now = time.monotonic()
        while flying and flying[0][0] <= now:
            _, _, target, packet = heapq.heappop(flying)
            with contextlib.suppress(OSError):  # its buffer is full: the packet is lost
                os.write(devices[target], packet)


def _change(queues: Mapping[tuple[str, str], Queue], commands: IO[str]) -> bool:
    """Carry out a change; false at the end of the input."""
    text = commands.readline()
    if not text:
        return False
    command = json.loads(text)
    one, other = command["between"]
    for pair in ((one, other), (other, one)):
        queues[pair].line = Line(**command["line"])
    return True


def _packets(handle: int) -> Iterable[bytes]:
    """IPv4 packets that wait at a device, no more than some at a time."""
    for _ in range(64):
        try:
            packet = os.read(handle, 65536)
        except BlockingIOError:
            return
        if packet[0] >> 4 == 4:
            yield packet


if __name__ == "__main__":
    main(sys.argv[1:])
