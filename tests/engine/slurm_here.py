"""A Slurm of one's own on this machine: munged, slurmctld and two slurmd with one CPU each, in a folder."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from tiny_runs import until

PARTS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")

CONFIG = """
ClusterName=tiny
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_min_interval=200000,batch_sched_delay=0
ReturnToService=2
SlurmdTimeout=5
KillWait=2
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why it cannot be started here, or nothing."""
    absent = [name for name in PARTS if _where(name) is None]
    return f"no {', '.join(absent)} (Debian: slurm-wlm, munge)" if absent else ""


def _where(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class Slurm:
    """Started at once; ``stop`` ends every process of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._processes = folder, {}
        (folder / "state").mkdir(parents=True)
        config, key = folder / "slurm.conf", folder / "munge.key"
        user = pwd.getpwuid(os.getuid()).pw_name
        config.write_text(CONFIG.format(ports=_ports(3), folder=folder, user=user))
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self.environment = {"SLURM_CONF": str(config)}
        files = (f"--{name}-file={folder / f'munge.{name}'}" for name in ("key", "pid", "log", "seed"))
        self._start("munged", "--foreground", "--force", f"--socket={folder / 'munge.socket'}", *files)
        until((folder / "munge.socket").exists, 20)
        self._start("slurmctld", "-D")
        for node in ("n1", "n2"):
            self._start("slurmd", "-D", "-N", node, name=node)
        until(lambda: self.says("sinfo", "-h", "-o", "%D %t") == "2 idle", 40)

    def says(self, *command: str) -> str:
        """What a command of Slurm prints."""
        told = {**os.environ, **self.environment}
        return subprocess.run(command, env=told, capture_output=True, text=True, check=False).stdout.strip()

    def processes(self) -> dict[int, str]:
        """The processes of this Slurm's jobs, each with its node."""
        found = {}
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                told = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            named = dict(word.decode(errors="replace").partition("=")[::2] for word in told)
            if named.get("SLURM_CONF") == self.environment["SLURM_CONF"] and "SLURMD_NODENAME" in named:
                found[pid] = named["SLURMD_NODENAME"]
        return found

    def kill_node(self, node: str) -> None:
        """As a power cut: slurmd and everything that it started, at once, before any of it can say that it ends."""
        jobs = [pid for pid, where in self.processes().items() if where == node]
        guards = {_parent(pid) for pid in jobs}
        self._processes.pop(node).kill()
        for pid in [*(pid for pid in guards if "slurmstepd" in _command(pid)), *jobs]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End it."""
        for process in reversed(self._processes.values()):
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

    def _start(self, program: str, *arguments: str, name: str = "") -> None:
        with open(self.folder / f"{name or program}.log", "wb") as log:
            self._processes[name or program] = subprocess.Popen(
                [_where(program) or program, *arguments],
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def _ports(n: int) -> list[int]:
    probes = [socket.socket() for _ in range(n)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
