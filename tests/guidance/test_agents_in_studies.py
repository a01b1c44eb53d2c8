"""A study of two windows of guidance: its bits, its columns and its figure."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from small_runs import quiet_trainer

from critical_periods.callbacks import GuidanceWindow
from critical_periods.core.errors import UserError
from critical_periods.guidance import HelperReward
from critical_periods.runs.lightning_cli import CLI
from critical_periods.studies import load_study, worker
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.plan import Plan, make_plan
from critical_periods.studies.report import write_report
from critical_periods.studies.resolve import resolve
from critical_periods.studies.segment import segment_config
from critical_periods.studies.study import read_study

BASE = """
num_threads: 1
trainer:
  accelerator: cpu
  max_epochs: 3
  enable_progress_bar: false
  callbacks: [{class_path: AgentMonitor, init_args: {samples: 4}}]
model:
  class_path: ActorCriticTask
  init_args:
    network: {class_path: AgentMLP, init_args: {in_features: 100, outputs: 4, hidden: [8]}}
    critic: {class_path: AgentMLP, init_args: {in_features: 100, outputs: 1, hidden: [8]}}
    steps: 10
    passes: 1
    minibatches: 2
data:
  class_path: EnvironmentDataModule
  init_args:
    environment:
      class_path: FourRooms
      init_args: {size: 5, layouts: 40, val_layouts: 8, limit: 20}
    environments: 16
"""
STUDY = """
base: base.yaml
window:
  class_path: GuidanceWindow
  init_args: {guidance: {class_path: HelperReward, init_args: {weight: 0.3}}}
windows: {onset: [0, 1], length: 1, epochs: 3}
"""


def planned(folder: Path, study: str = STUDY, base: str = BASE) -> Plan:
    (folder / "base.yaml").write_text(base)
    (folder / "guided.yaml").write_text(study)
    read = read_study(folder / "guided.yaml")
    return make_plan(read, *resolve(read))


def test_a_study_of_two_windows_is_that_of_runs_in_a_piece(tmp_path):
    plan = planned(tmp_path)
    # Guidance changes nothing before it begins, so that the control's first epoch is shared.
    assert (plan.epochs, plan.separate_epochs) == (8, 9)
    folder = StudyFolder(tmp_path / "out")
    folder.write_plan(plan)
    worker.work(folder)
    assert {"agent.csv", "agent.png", "curve.png"} <= set(write_report(folder, plan))
    study = load_study(folder.path)
    for place, run in enumerate(plan.runs):
        history = study.history
        where = (history["onset"] == run.window.onset) & (history["removal"] == run.window.removal)
        success, row = history[where]["val/success"], study.runs.iloc[place]
        assert row["success_area"] == pytest.approx(success.mean(), rel=1e-4)
        assert row["success"] == pytest.approx(success.iloc[-1], rel=1e-4)
        assert row["critic_fisher"] > 0 and 0 <= row["policy_dormant"] <= 1
        config = segment_config(plan, plan.segments[run.segment])
        config["trainer"]["callbacks"] = []
        cli = CLI(config, run=False, logger=False)
        window = GuidanceWindow(HelperReward(0.3), run.window.onset, run.window.removal)
        quiet_trainer(window, max_epochs=3).fit(cli.model, cli.datamodule)
        for name, weight in study.task(row).state_dict().items():
            assert torch.equal(weight, cli.model.state_dict()[name]), name
    curve = study.curve
    assert isinstance(curve, pd.DataFrame) and curve["success_area_difference"].notna().any()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("FourRooms", "FourRoom", "FourRoom.*did you mean 'FourRooms'"),
        ("HelperReward", "Helper", "Helper.*did you mean 'HelperReward'"),
        ("size: 5, layouts: 40", "size: 7, layouts: 40", "set in_features to 324"),
    ],
)
def test_mistakes_of_a_study_are_told_in_a_sentence(old, new, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence) as told:
        planned(tmp_path, STUDY.replace(old, new), BASE.replace(old, new))
    assert "\n" not in str(told.value)
