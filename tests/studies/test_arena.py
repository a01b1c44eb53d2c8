"""Studies of remedies: their tree, their training, their table, their mistakes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_study import Tree, plan_of, planned, write_study

from critical_periods.core.errors import UserError
from critical_periods.runs.lightning_cli import CLI
from critical_periods.studies import load_study, worker
from critical_periods.studies.loading import LoadedStudy
from critical_periods.studies.outline import outline
from critical_periods.studies.report import write_report
from critical_periods.studies.segment import segment_config
from critical_periods.studies.statistics import summarise

PLAIN: Tree = {"trainer.callbacks": []}
RECOVERY: Tree = {
    "patching": [{"class_path": "Patching", "init_args": {"removal": 1}}],
    "restart": ["LearningRateRestart"],
    "decay": [{"class_path": "InitialWeightDecay", "init_args": {"decay": 0.5, "onset": 1}}],
}
STUDY: Tree = {"windows": {"removal": [1, 2], "epochs_after": 2}, "seeds": [0, 1]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> LoadedStudy:
    study = STUDY | {"windows": {"removal": [2], "epochs_after": 2}, "recovery": RECOVERY}
    folder, plan = planned(tmp_path_factory.mktemp("arena"), study, PLAIN)
    worker.work(folder)
    write_report(folder, plan)
    return load_study(folder.path)


def remedy(name: str, **settings: Any) -> Tree:
    """A study's field with one remedy."""
    return {"recovery": {"x": [{"class_path": name, "init_args": settings}]}}


def test_remedies_leave_trunks_that_runs_without_them_have(tmp_path):
    plain = plan_of(write_study(tmp_path, STUDY, PLAIN))
    plan = plan_of(write_study(tmp_path, STUDY | {"recovery": RECOVERY}, PLAIN))
    assert len(plan.runs) == 2 * 4 * (2 + 2)
    # By seed: the trunk of both deficits and of the clean runs, each to its end, and from each of
    # two removals, with the deficit and without, a branch for every remedy. The decay begins an
    # epoch later: after the first removal it shares that epoch, which ends in a cut, with none.
    assert plan.epochs == 2 * (2 + 2 * 2 + 4 + 3 * 2 * 2 * 2 - 2)
    assert {run.segment for run in plain.runs if run.window.removal} <= set(plan.segments)
    trunks = [one for one in plan.segments.values() if one.start == 0 and one.seed == 0]
    assert [one.window for one in trunks] == [(0, 1), (0, 0)]
    assert "remedy" not in outline(plan) and ", patching" in outline(plan)
    # Another remedy adds branches alone.
    more = RECOVERY | {"shrink": ["ShrinkPerturb"]}
    grown = plan_of(write_study(tmp_path, STUDY | {"recovery": more}, PLAIN))
    assert set(plan.segments) < set(grown.segments)


def test_a_branch_has_the_bits_of_a_run_in_one_piece(trained):
    for run in trained.plan.runs:
        if (
            run.variation["remedy"] in ("decay", "patching")
            and run.seed == 0
            and run.window.removal
        ):
            config = segment_config(trained.plan, trained.plan.segments[run.segment])
            cli = CLI(config, run=False, logger=False)
            cli.trainer.fit(cli.model, cli.datamodule)
            state = torch.load(trained.folder.segment(run.segment).checkpoint)["state_dict"]
            assert all(
                torch.equal(state[name], one) for name, one in cli.model.state_dict().items()
            )


def test_the_table_by_hand(trained):
    runs, table = trained.runs, trained.remedies
    assert list(table["remedy"]) == ["none", *RECOVERY]
    assert (trained.folder.path / "remedies.png").exists()

    def by_seed(remedy: str, removal: int) -> list[float]:
        chosen = runs[(runs["remedy"] == remedy) & (runs["removal"] == removal)]
        return list(chosen.sort_values("seed")["final_accuracy"])

    for row in table.to_dict("records"):
        pairs: dict[str, Any] = {"lost": (by_seed("none", 0), by_seed(row["remedy"], 2))}
        if row["remedy"] != "none":
            pairs["regained"] = by_seed(row["remedy"], 2), by_seed("none", 2)
            pairs["clean_cost"] = by_seed("none", 0), by_seed(row["remedy"], 0)
        for name, (more, less) in pairs.items():
            wanted = summarise([a - b for a, b in zip(more, less, strict=True)])
            found = [row[f"{name}{end}"] for end in ("", "_sd", "_low", "_high")]
            assert found == pytest.approx(list(wanted), rel=1e-4, abs=1e-9)
        assert row["seeds"] == 2 and 0 <= row["matched_seeds"] <= 2


@pytest.mark.parametrize(
    ("study", "base", "sentence"),
    [
        ({"recovery": {"none": ["ShrinkPerturb"]}}, {}, "recovery.none is the baseline; leave"),
        ({"recovery": {"rest": []}}, {}, "recovery.rest is no callback; leave it out"),
        ({"recovery": {"rest": [3]}}, {}, "recovery.rest holds 3; each needs a class_path"),
        (
            {"recovery": {"x": ["RegularizationWindow"]}},
            {},
            "remedy 'x': RegularizationWindow does",
        ),
        ({"recovery": {"x": ["NoSuch"]}}, {}, "remedy 'x': .*NoSuch"),
        (
            remedy("Patching", removal=3),
            {},
            "remedy 'x': removal=3 of Patching must lie from 0 to 2: a remedy's epochs are counted"
            ".* removal of the deficit, and windows.epochs_after=2 of them follow",
        ),
        (remedy("Patching", onset=1, removal=0), {}, "removal=0 of Patching must lie from 1 to 2"),
        (remedy("Patching", view=2), {}, "view=2 of Patching must lie from 0 to 1: the data has 2"),
        (remedy("ShrinkPerturb", onset=-1), {}, "onset=-1 of ShrinkPerturb must lie from 0 to 1"),
        (remedy("ShrinkPerturb", onset=2), {}, "onset=2 of ShrinkPerturb must lie from 0 to 1"),
        (
            remedy("LearningRateRestart", epoch=1, every_n_epochs=2),
            {},
            "every_n_epochs=2 of LearningRateRestart must lie from 1 to 1",
        ),
        (
            remedy("LayerReset", layers=["no"]),
            {},
            "remedy 'x': layers of LayerReset names 'no', which the network does not have",
        ),
        ({"recovery": {"x": ["DormantUnitReset"]}}, {"model.init_args.lr_scheduler": None}, ""),
        (
            {"recovery": {"x": ["LearningRateRestart"]}},
            {"model.init_args.lr_scheduler": None},
            "LearningRateRestart finds no learning-rate schedule",
        ),
        (
            {"recovery": {"x": ["Patching"]}, "deficit.init_args.views": None},
            {
                "data.class_path": "DigitsDataModule",
                "model.init_args.network.class_path": "AllCNN",
            },
            "remedy 'x': Patching covers the good eye of two or more, but the data has 1 view",
        ),
        (
            {"recovery": RECOVERY, "windows": {"onset": [0], "epochs": 3}},
            {},
            "recovery compares runs that .* but windows has onsets; give windows.removal and one",
        ),
        (
            {
                "recovery": RECOVERY,
                "windows": {"removal": [1], "epochs_after": [2, 4], "cooldown": 1},
            },
            {},
            "but windows has a ladder; .* or leave recovery out",
        ),
    ],
)
def test_mistakes_get_a_sentence_before_training(tmp_path: Path, study, base, sentence):
    path = write_study(tmp_path, study, PLAIN | base)
    if sentence:
        with pytest.raises(UserError, match=sentence):
            plan_of(path)
    else:
        plan_of(path)
