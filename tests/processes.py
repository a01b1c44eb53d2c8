"""Several processes on this machine, as Lightning's DDP starts them."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WORLD = 2

# A process without threads imports once what all of them need, and they start as copies of it.
_SHARED = ("pytorch_lightning", "critical_periods.data.video", "pandas", "sklearn.datasets", "timm")
multiprocessing.set_forkserver_preload([*_SHARED, "pytest"])


def start_processes(run: Callable[[int, Path], None], folder: Path) -> Any:
    """Starts ``run(rank, folder)`` in two processes; ``join_processes`` waits for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return torch.multiprocessing.start_processes(
        _process, (run, folder, port), WORLD, join=False, start_method="forkserver"
    )


def join_processes(context: Any) -> None:
    """Waits until all have ended, and raises what any of them raised."""
    while not context.join():
        pass


def _process(rank: int, run: Callable[[int, Path], None], folder: Path, port: int) -> None:
    # Of the test in which the first of them began.
    os.environ.pop("PL_GLOBAL_SEED", None)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
    }
    torch.set_num_threads(1)
    run(rank, folder)
