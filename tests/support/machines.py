"""Machines with addresses of their own on one network, from the namespaces of Linux: no machine, but its network."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

TOOLS = ("nsenter", "unshare", "ip", "hostname")


def missing(*tools: str) -> str | None:
    """Why there can be none here, or which of the tools that they are to run are not there."""
    absent = [tool for tool in (*TOOLS, *tools) if shutil.which(tool) is None]
    if absent:
        return f"needs {', '.join(absent)}"
    if os.geteuid() or subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True).returncode:
        return "needs root and the right to make namespaces"
    return None


@dataclass(frozen=True)
class Machine:
    """A network and a host's name, for as long as the process `holder` lives."""

    name: str
    holder: int
    address: str = "127.0.0.1"

    @property
    def inside(self) -> list[str]:
        """What a command line begins with to be run there."""
        return ["nsenter", f"--net=/proc/{self.holder}/ns/net", f"--uts=/proc/{self.holder}/ns/uts"]


@contextmanager
def machine(name: str) -> Iterator[Machine]:
    """One that has nothing but its loopback interface."""
    up = f"hostname {name} && ip link set lo up && echo up && exec sleep 3600"
    line = ["unshare", "--net", "--uts", "sh", "-c", up]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "up\n"
        try:
            yield Machine(name, holder.pid)
        finally:
            holder.kill()


class Network:
    """Machines on one switch, which stands in the first of them."""

    def __init__(self, switch: Machine) -> None:
        self.switch = switch
        self._ip(switch, "link add switch type bridge")
        self._ip(switch, f"addr add {switch.address}/24 dev switch")
        self._ip(switch, "link set switch up")

    def connect(self, machine: Machine) -> None:
        """Gives a machine its cable."""
        self._ip(self.switch, f"link add {machine.name} type veth peer name cable netns {machine.holder}")
        self._ip(machine, f"addr add {machine.address}/24 dev cable")
        self._ip(machine, "link set cable up")
        self._ip(self.switch, f"link set {machine.name} up")
        self.heal(machine)

    def cut(self, machine: Machine) -> None:
        """From now on all that a machine sends, or is sent, is lost, and nobody is told."""
        self._ip(self.switch, f"link set {machine.name} nomaster")

    def heal(self, machine: Machine) -> None:
        """Connects a machine, again."""
        self._ip(self.switch, f"link set {machine.name} master switch")

    def _ip(self, machine: Machine, command: str) -> None:
        subprocess.run([*machine.inside, "ip", *command.split()], check=True)


@contextmanager
def network(*names: str) -> Iterator[tuple[Network, list[Machine]]]:
    """A network and its machines by these names; the switch is in the first, which is the one that has the servers."""
    with ExitStack() as stack:
        alone = [stack.enter_context(machine(name)) for name in names]
        machines = [replace(each, address=f"10.77.0.{number}") for number, each in enumerate(alone, start=1)]
        made = Network(machines[0])
        for each in machines[1:]:
            made.connect(each)
        yield made, machines
