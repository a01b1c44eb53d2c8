"""Several processes on this machine, as Lightning's DDP starts them."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WORLD = 2


def start_processes(run: Callable[[int, Path], None], folder: Path) -> Any:
    """Starts ``run(rank, folder)`` in two processes; ``join_processes`` waits for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (run, folder, port)
    return torch.multiprocessing.spawn(_process, arguments, nprocs=WORLD, join=False)


def join_processes(context: Any) -> None:
    """Waits until all have ended, and raises what any of them raised."""
    while not context.join():
        pass


def _process(rank: int, run: Callable[[int, Path], None], folder: Path, port: int) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
    }
    torch.set_num_threads(1)
    run(rank, folder)
