"""A real Slurm of six nodes on this machine, for the tests of its launcher."""

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import accounts
from waiting import call, end, wait_for

_CONF = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
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
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmdParameters=config_overrides
JobRequeue=1
MinJobAge=3600
# On a busy machine much takes long that is a fault elsewhere.
SlurmdTimeout=30
MessageTimeout=100
TCPTimeout=60
BatchStartTimeout=600
KillWait=120
UnkillableStepTimeout=600
{accounts}
{nodes}
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=1:00:00 DefaultTime=10
PartitionName=limited Nodes=n1,n2 MaxTime=1:00:00 DefaultTime=10
PartitionName=low Nodes=n3 MaxTime=1:00:00 DefaultTime=10 PriorityTier=1
PartitionName=urgent Nodes=n3 MaxTime=1:00:00 DefaultTime=10 PriorityTier=10
PartitionName=frail Nodes=n4,n5 MaxTime=1:00:00 DefaultTime=10
PartitionName=lone Nodes=n6 MaxTime=1:00:00 DefaultTime=10
"""

NODES = {"n1": 4, "n2": 4, "n3": 1, "n4": 1, "n5": 1, "n6": 1}
"""How many processors each is said to have."""

AVAILABLE = os.getuid() == 0 and all(
    shutil.which(name) for name in ("slurmctld", "slurmd", "munged", "sbatch")
)


@contextmanager
def slurm(folder: Path, most: dict[str, int] | None = None) -> Iterator[None]:
    """Runs a Slurm whose files lie in a folder, and which its commands find by SLURM_CONF.

    With ``most``, it has accounts, by which this user has at most so many jobs in some partitions.
    """
    conf = folder / "slurm.conf"
    for name in ("ctld", *NODES):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    *ports, for_accounts = _free_ports(2 + len(NODES))
    lines = [
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={processors}"
        for (name, processors), port in zip(NODES.items(), ports[1:], strict=True)
    ]
    held = accounts.settings(folder, for_accounts) if most else ""
    nodes = "\n".join(lines)
    conf.write_text(
        _CONF.format(host=host, folder=folder, port=ports[0], nodes=nodes, accounts=held)
    )
    os.environ["SLURM_CONF"] = str(conf)
    files = {"key-file": key, "socket": "munge.sock", "pid-file": "munge.pid"}
    files |= {"log-file": "munged.log", "seed-file": "munge.seed"}
    call("munged", "--force", *(f"--{name}={folder / file}" for name, file in files.items()))
    ended = threading.Event()
    hurries = threading.Thread(target=_hurry, args=[ended])
    try:
        if most:
            accounts.start(folder, for_accounts, most)
        start_controller("-c")
        for node in NODES:
            start_node(node)
        wait_for(lambda: set(call("sinfo", "-h", "-N", "-o", "%T").split()) == {"idle"})
        hurries.start()
        yield
    finally:
        # Of a test that has failed.
        with suppress(subprocess.CalledProcessError, AssertionError):
            call("scancel", "--me")
            wait_for(lambda: not call("squeue", "--noheader", "--me"), 60)
        ended.set()
        if hurries.is_alive():
            hurries.join()
        # Of the accounts, whoever asks the database ends before it.
        for name in ("slurmctld", "slurmd.*", "slurmdbd", "mariadb", "munge"):
            numbers = [int(file.read_text()) for file in folder.glob(f"{name}.pid")]
            with ThreadPoolExecutor() as side_by_side:
                list(side_by_side.map(end, numbers))
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
    end(int(file.read_text()))


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


def _hurry(ended: threading.Event) -> None:
    """Has jobs that were requeued start soon, which Slurm holds for two minutes."""
    held: set[str] = set()
    # A job that begins in the second in which it has ended is refused by its node.
    while not ended.wait(2):
        with suppress(subprocess.CalledProcessError):
            waiting = call("squeue", "-h", "-t", "PENDING", "-o", "%i %r").splitlines()
            now = {line.split()[0] for line in waiting if line.endswith("BeginTime")}
            for job in held & now:
                call("scontrol", "update", f"jobid={job}", "StartTime=now")
            held = now - held


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
