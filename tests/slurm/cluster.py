"""A real Slurm of five nodes on this machine, for the tests of its launcher."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_CONF = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=10
CredType=cred/munge
SlurmctldPort={port}
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
JobSubmitPlugins=lua
MinJobAge=300
SlurmdTimeout=10
{nodes}
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=1:00:00 DefaultTime=10
PartitionName=limited Nodes=n1,n2 MaxTime=1:00:00 DefaultTime=10
PartitionName=low Nodes=n3 MaxTime=1:00:00 DefaultTime=10 PriorityTier=1
PartitionName=urgent Nodes=n3 MaxTime=1:00:00 DefaultTime=10 PriorityTier=10
PartitionName=frail Nodes=n4,n5 MaxTime=1:00:00 DefaultTime=10
"""

# Has Slurm say of every third job of a partition what it says where a user has MaxSubmitJobs in
# the queue, which needs a database of accounts otherwise.
_SUBMIT = """
local taken = 0
function slurm_job_submit(job, partitions, user)
    if job.partition ~= "limited" then return slurm.SUCCESS end
    taken = (taken + 1) % 3
    if taken > 0 then return slurm.SUCCESS end
    slurm.log_user("AssocMaxSubmitJobLimit")
    return slurm.ESLURM_ACCOUNTING_POLICY
end
function slurm_job_modify(job, changed, partitions, user) return slurm.SUCCESS end
"""

NODES = {"n1": 4, "n2": 4, "n3": 1, "n4": 1, "n5": 1}
"""How many processors each is said to have."""

AVAILABLE = os.getuid() == 0 and all(
    shutil.which(name) for name in ("slurmctld", "slurmd", "munged", "sbatch")
)


@contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """Runs a Slurm whose files lie in a folder, and which its commands find by SLURM_CONF."""
    conf = folder / "slurm.conf"
    for name in ("ctld", *NODES):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    ports = _free_ports(1 + len(NODES))
    lines = [
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={processors}"
        for (name, processors), port in zip(NODES.items(), ports[1:], strict=True)
    ]
    nodes = "\n".join(lines)
    conf.write_text(_CONF.format(host=host, folder=folder, port=ports[0], nodes=nodes))
    (folder / "job_submit.lua").write_text(_SUBMIT)
    os.environ["SLURM_CONF"] = str(conf)
    files = {"key-file": key, "socket": "munge.sock", "pid-file": "munge.pid"}
    files |= {"log-file": "munged.log", "seed-file": "munge.seed"}
    call("munged", "--force", *(f"--{name}={folder / file}" for name, file in files.items()))
    try:
        start_controller("-c")
        for node in NODES:
            start_node(node)
        wait_for(lambda: set(call("sinfo", "-h", "-N", "-o", "%T").split()) == {"idle"})
        yield
    finally:
        # Of a test that has failed.
        with suppress(subprocess.CalledProcessError, AssertionError):
            call("scancel", "--me")
            wait_for(lambda: not call("squeue", "--noheader", "--me"), 60)
        for file in folder.glob("*.pid"):
            subprocess.run(["kill", file.read_text().strip()], check=False)
        del os.environ["SLURM_CONF"]


def start_controller(*options: str) -> None:
    """Starts what knows the queue; by default it goes on with that of the one before it."""
    call("slurmctld", "-f", os.environ["SLURM_CONF"], *options)


def start_node(name: str) -> None:
    """Starts the daemon of a node."""
    call("slurmd", "-f", os.environ["SLURM_CONF"], "-N", name)


def stop_controller() -> None:
    """Ends what knows the queue; jobs go on."""
    file = Path(os.environ["SLURM_CONF"]).with_name("slurmctld.pid")
    number = int(file.read_text())
    os.kill(number, signal.SIGTERM)
    wait_for(lambda: not Path(f"/proc/{number}").exists())


def lose_node(name: str, job: str) -> None:
    """Kills a node's daemon and all of a job on it, as if its power were gone."""
    conf = Path(os.environ["SLURM_CONF"])
    os.kill(int(conf.with_name(f"slurmd.{name}.pid").read_text()), signal.SIGKILL)
    # First what would tell the controller of the end of the others.
    for said in (f"slurmstepd: [{job}.", f"SLURM_JOB_ID={job}\0"):
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                known = (process / "environ").read_bytes()
                if said.encode() in (process / "cmdline").read_bytes() + known and (
                    f"SLURM_CONF={conf}".encode() in known
                ):
                    os.kill(int(process.name), signal.SIGKILL)


def call(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wait_for(what: Callable[[], Any], seconds: float = 300) -> Any:
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
