"""A real Slurm of two nodes on this machine, for the tests of its launcher."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CONF = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmdParameters=config_overrides
JobRequeue=1
KillWait=5
MinJobAge=300
SlurmdTimeout=10
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=1:00:00 DefaultTime=10 PriorityTier=1 State=UP
PartitionName=urgent Nodes=n1,n2 MaxTime=1:00:00 DefaultTime=10 PriorityTier=10 State=UP
"""

AVAILABLE = os.getuid() == 0 and all(
    shutil.which(name) for name in ("slurmctld", "slurmd", "munged", "sbatch")
)


@contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """Runs a Slurm whose files lie in a folder, and which its commands find by SLURM_CONF."""
    conf = folder / "slurm.conf"
    for name in ("ctld", "n1", "n2"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    conf.write_text(_CONF.format(host=host, folder=folder, ports=_free_ports(3)))
    os.environ["SLURM_CONF"] = str(conf)
    files = {"key-file": key, "socket": "munge.sock", "pid-file": "munge.pid"}
    files |= {"log-file": "munged.log", "seed-file": "munge.seed"}
    call("munged", "--force", *(f"--{name}={folder / file}" for name, file in files.items()))
    try:
        call("slurmctld", "-f", str(conf), "-c")
        for node in ("n1", "n2"):
            call("slurmd", "-f", str(conf), "-N", node)
        wait_for(lambda: call("sinfo", "-h", "-N", "-o", "%T").split() == ["idle"] * 4)
        yield
    finally:
        for file in folder.glob("*.pid"):
            subprocess.run(["kill", file.read_text().strip()], check=False)
        del os.environ["SLURM_CONF"]


def call(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wait_for(what: Callable[[], Any], seconds: float = 120) -> Any:
    """Waits until something is so, and returns it; an AssertionError if that takes too long."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, what
        time.sleep(0.2)
    return found


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
