"""The smallest run and study that have everything, for the tests that run one."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.plan import Plan, make_plan
from critical_periods.studies.resolve import resolve
from critical_periods.studies.study import read_study

Tree = dict[str, Any]

BASE: Tree = yaml.safe_load("""
num_threads: 1
trainer:
  max_epochs: 2
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  num_sanity_val_steps: 0
  limit_val_batches: 4
  callbacks:
  - class_path: SourceVarianceMonitor
    init_args: {layers: [trunk.conv], samples: 16, pairs: 2}
model:
  class_path: ClassificationTask
  init_args:
    network: {class_path: SplitAllCNN, init_args: {depth: 1, width: 4, in_channels: 1}}
    optimizer: {class_path: SGD, init_args: {lr: 0.05, momentum: 0.9}}
    lr_scheduler: {class_path: ExponentialLR, init_args: {gamma: 0.9}}
data:
  class_path: StereoDigitsDataModule
  init_args: {limit_train: 100, batch_size: 50}
""")

STUDY: Tree = {
    "base": "base.yaml",
    "deficit": {"class_path": "Blur", "init_args": {"factor": 4, "views": [1]}},
    "windows": {"removal": [0, 2], "epochs_after": 2},
    "seeds": [0],
}


def changed(tree: Tree, changes: Tree) -> Tree:
    """A copy with some fields, named with dots, set; None takes a field away."""
    tree = copy.deepcopy(tree)
    for name, value in changes.items():
        *parents, last = name.split(".")
        inner: Any = tree
        for parent in parents:
            inner = inner[int(parent)] if isinstance(inner, list) else inner.setdefault(parent, {})
        if value is None:
            inner.pop(last, None)
        else:
            inner[last] = value
    return tree


def write_run(changes: Tree | None = None) -> str:
    """Writes run.yaml, a run of two epochs, with some fields changed."""
    Path("run.yaml").write_text(yaml.safe_dump(changed(BASE, changes or {})))
    return "run.yaml"


def write_study(folder: Path, study: Tree | None = None, base: Tree | None = None) -> Path:
    """Writes base.yaml and small.yaml with some fields changed; returns the study's path."""
    (folder / "base.yaml").write_text(yaml.safe_dump(changed(BASE, base or {})))
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(changed(STUDY, study or {}), sort_keys=False))
    return path


def plan_of(path: Path, overrides: Sequence[str] = ()) -> Plan:
    """The plan of a study file."""
    study = read_study(path, overrides)
    return make_plan(study, *resolve(study))


def planned(
    folder: Path, study: Tree | None = None, base: Tree | None = None
) -> tuple[StudyFolder, Plan]:
    """The output folder, with its plan, of a study that :func:`write_study` writes."""
    plan, output = plan_of(write_study(folder, study, base)), StudyFolder(folder / "out")
    output.write_plan(plan)
    return output, plan
