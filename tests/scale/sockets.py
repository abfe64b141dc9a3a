"""The listening sockets of real runs, seen from outside: who could reach them, and who does."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import threading
from pathlib import Path
from typing import Any

import psutil

from scale.run import RUN_FOLDER

PERIOD = 0.5


def addresses() -> list[str]:
    """Return the addresses under which other machines know this one; those of a link alone are left out."""
    every = [each for interface in psutil.net_if_addrs().values() for each in interface]
    ips = [x.address for x in every if x.family in (socket.AF_INET, socket.AF_INET6) and "%" not in x.address]
    return [x for x in ips if not ipaddress.ip_address(x).is_loopback]


def refused(address: str, port: int) -> bool:
    """Return whether a connection to an address and port is refused."""
    try:
        socket.create_connection((address, port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def status(port: int, path: str, key: str | None = None) -> int | None:
    """Return the status of an HTTP request to a port on this machine; None if it does not speak HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


class Sockets:
    """Looks at the processes of all runs below a folder, while the block lasts.

    Attributes
    ----------
    found : By the run's folder, the sockets that listen (TCP) or wait for anybody (UDP): IP address and port.
    reached : Addresses of this machine, and ports, that did not refuse a connection from outside the loopback's.
    guarded, open : Ports of vLLM's HTTP server that refused a request without a key, and that did not.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.found: dict[Path, set[tuple[str, int]]] = {}
        self.reached: set[tuple[str, int]] = set()
        self.guarded: set[int] = set()
        self.open: set[int] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Sockets:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(PERIOD):
            for each in psutil.net_connections("inet"):
                waits = each.status == psutil.CONN_LISTEN or (each.type == socket.SOCK_DGRAM and not each.raddr)
                if waits and each.pid is not None:
                    with contextlib.suppress(psutil.Error, OSError):  # a process that has just ended
                        self._look(psutil.Process(each.pid), each)

    def _look(self, process: psutil.Process, each: Any) -> None:
        run, (_, port) = Path(process.environ().get(RUN_FOLDER, "/")), each.laddr
        if not run.is_relative_to(self.folder) or tuple(each.laddr) in self.found.setdefault(run, set()):
            return
        self.found[run].add(tuple(each.laddr))
        if each.type == socket.SOCK_STREAM:
            self.reached |= {(x, port) for x in addresses() if not refused(x, port)}
            if "vLLMHttpServer" in " ".join(process.cmdline()) and (said := status(port, "/v1/models")) is not None:
                (self.guarded if said == 401 else self.open).add(port)


def elsewhere(found: set[tuple[str, int]]) -> set[tuple[str, int]]:
    """Return the sockets that are not on the loopback address, which Linux may write as ::ffff:127.0.0.1."""
    return {each for each in found if each[0] not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")}
