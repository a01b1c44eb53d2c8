"""The precision in which a machine trains fastest, measured."""

import os
import time
from functools import cache
from typing import Any

import torch

from critical_periods.core.errors import UserError

# What the first process of a training has measured, for those that Lightning starts beside it.
_MEASURED = "CRITICAL_PERIODS_PRECISION"
# A GPU takes no longer to multiply small matrices than to be asked to, in either precision.
_SIZES, _ROUNDS = {"cpu": 512, "cuda": 2048}, 5
# What a product has to gain before casts to it and back are worth it.
_GAIN = 1.2


def resolved_precision(trainer: Any) -> str | None:
    """What ``trainer.precision: auto`` means here; ``None`` where the settings say otherwise.

    Args:
        trainer: settings of a trainer, a dict or what behaves like one.

    Raises:
        UserError: it is one of several processes that torchrun or srun has started, which might
            measure differently.
    """
    settings = trainer if hasattr(trainer, "get") else {}
    if settings.get("precision") != "auto":
        return None
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE") != "1"
    by_srun = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1
    if by_torchrun or by_srun:
        raise UserError(
            f"trainer.precision is 'auto', which each of the processes that "
            f"{'srun' if by_srun else 'torchrun'} has started would measure for itself; set it to "
            "bf16-mixed or 32-true."
        )
    if int(os.environ.get("LOCAL_RANK") or 0) == 0 or _MEASURED not in os.environ:
        os.environ[_MEASURED] = fastest_precision(str(settings.get("accelerator") or "auto"))
    return os.environ[_MEASURED]


@cache
def fastest_precision(accelerator: str = "auto") -> str:
    """``bf16-mixed`` where a matrix product is 1.2 times as fast in bf16, else ``32-true``.

    Processors without units for bf16 emulate it, and train at a third of the speed of float32. Both
    products take turns, and the fastest of each counts, which takes less than a second.

    Args:
        accelerator: of a trainer; others than CPUs and CUDA devices train in float32.

    Example:
        >>> fastest_precision("cpu") in ("bf16-mixed", "32-true")
        True
    """
    is_cuda = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    # Which Lightning chooses on a Mac.
    is_mps = accelerator == "auto" and torch.backends.mps.is_available()
    if not is_cuda and (is_mps or accelerator not in ("auto", "cpu")):
        return "32-true"
    device = torch.device("cuda" if is_cuda else "cpu")
    kinds = (torch.float32, torch.bfloat16)
    size = _SIZES[device.type]
    matrices = [torch.ones(size, size, dtype=kind, device=device) for kind in kinds]
    taken = [[_seconds(matrix) for matrix in matrices] for _ in range(_ROUNDS + 1)]
    float32, bf16 = (min(of) for of in zip(*taken[1:], strict=True))
    return "bf16-mixed" if float32 > _GAIN * bf16 else "32-true"


def _seconds(matrix: torch.Tensor) -> float:
    start = time.perf_counter()
    # Reading a number waits for the device.
    float((matrix @ matrix)[0, 0])
    return time.perf_counter() - start
