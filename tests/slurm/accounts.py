"""A database of accounts for a Slurm of the tests, which holds how many jobs a user may have."""

import shutil
import socket
import subprocess
from pathlib import Path

from waiting import call, wait_for

PROGRAMS = ("slurmdbd", "sacctmgr", "mariadbd", "mariadb-install-db", "my_print_defaults")
AVAILABLE = all(map(shutil.which, PROGRAMS))

_CONF = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageLoc=slurm
StorageUser=root
"""


def settings(folder: Path, port: int) -> str:
    """The lines of slurm.conf about it."""
    return f"""
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge.sock
AccountingStorageEnforce=limits
"""


def start(folder: Path, port: int, most: dict[str, int]) -> None:
    """Starts it, with how many jobs this user may have at most in some partitions."""
    data, sockets = folder / "accounts", folder / "accounts.sock"
    own = ["--no-defaults", "--user=root", f"--datadir={data}"]
    call("mariadb-install-db", *own, "--auth-root-authentication-method=normal")
    own += [f"--socket={sockets}", f"--pid-file={folder / 'mariadb.pid'}", "--skip-networking"]
    with (folder / "mariadb.log").open("wb") as log:
        # Apart from this process, whose child would be a zombie when it has ended.
        subprocess.run(["setsid", "--fork", "mariadbd", *own], stdout=log, stderr=log, check=True)
    wait_for(sockets.exists)
    conf = folder / "slurmdbd.conf"
    host = socket.gethostname().partition(".")[0]
    conf.write_text(_CONF.format(folder=folder, host=host, port=port))
    conf.chmod(0o600)
    call("env", f"MYSQL_UNIX_PORT={sockets}", "slurmdbd")
    wait_for(lambda: _answers(port))
    call("sacctmgr", "-i", "add", "cluster", "here")
    for partition, jobs in most.items():
        limit = [f"partition={partition}", f"MaxSubmitJobs={jobs}"]
        call("sacctmgr", "-i", "add", "user", "root", "account=root", *limit)


def _answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
