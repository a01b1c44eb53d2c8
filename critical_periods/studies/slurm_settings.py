"""What a study file says of a Slurm cluster."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PositiveInt

from critical_periods.core.errors import UserError


def _quoted(value: Any) -> Any:
    # YAML reads 4:00:00 as a number of base 60, and Slurm a number as minutes.
    if value is not None and not isinstance(value, str):
        raise UserError(
            f"slurm.time is {value!r}; put the time limit between quotes, such as '4:00:00' for "
            "four hours, as YAML takes it for a number."
        )
    return value


class SlurmSettings(BaseModel):
    """How jobs of a study are submitted; what is left out is as the cluster has it."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    partition: str | None = None
    """Where the jobs run."""
    account: str | None = None
    """Who pays for them."""
    time: Annotated[str | None, BeforeValidator(_quoted)] = None
    """The limit of one job, such as ``'4:00:00'``. One that is reached costs nothing: the segment
    saves, the job goes back to the queue and goes on."""
    gpus_per_node: PositiveInt | None = None
    """GPUs of each node; by default as many as ``trainer.devices`` where ``trainer.accelerator`` is
    ``gpu`` or ``cuda``, and otherwise none."""
    nodes: PositiveInt | None = None
    """Nodes of one segment; the run's ``trainer.num_nodes``, which it has to be."""
    cpus_per_task: PositiveInt | None = None
    """Cores of each process."""
    mem: str | None = None
    """Memory of each node, such as ``32G``."""
    constraint: str | None = None
    """Features that nodes need."""
    qos: str | None = None
    """The quality of service."""
    modules: list[str] = []
    """Environment modules that jobs load."""
    container: str | None = None
    """An Apptainer image that segments are trained in, with critical-periods in it."""
    python: str | None = None
    """The interpreter of the jobs; by default the one that submits them, and in a container the
    first on its path."""
    setup: list[str] = []
    """Lines of the shell before training, such as ``source activate``."""
    array_limit: PositiveInt | None = None
    """At most so many jobs of the study at once."""
    options: list[str] = []
    """More options of ``sbatch``, such as ``--mail-type=FAIL``."""
