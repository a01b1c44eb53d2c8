"""The studies that ship: each can be planned, and each full-scale one runs when it is cut short."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from test_cifar10 import write_folder
from test_mnist import write as write_mnist

from critical_periods.cli import main
from critical_periods.data import MovingDigitsDataModule
from critical_periods.data.video.moving_digits_video import write_videos
from critical_periods.studies import report, worker
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.plan import Plan, make_plan
from critical_periods.studies.resolve import resolve
from critical_periods.studies.study import read_study
from critical_periods.studies.tables import read_table

STUDIES = Path(__file__).parents[2] / "experiments" / "studies"
with (STUDIES.parent / "results" / "commands.csv").open(encoding="utf-8") as file:
    # What the documentation says of them.
    EPOCHS = {
        row["study"]: (int(row["epochs"]), int(row["separate_epochs"]))
        for row in csv.DictReader(file)
        if row["study"]
    }
# Studies of our own, with the epochs that one seed trains.
OWN = {
    "boundary_digits_grid": 219,
    "boundary_paths_grid": 1420,
    "deficits_cifar10": 490,
    "ends_digits": 66,
    "graded_digits": 64,
    "recovery_cifar10": 575,
    "recovery_digits": 360,
    "remedies_cifar10": 68,
    "remedies_digits": 102,
    "remedies_two_eyes": 114,
    "trace_digits": 80,
    "trace_digits_steps": 6,
}
MINI = sorted(path.stem for path in STUDIES.glob("*_mini.yaml") if path.stem not in OWN)
FULL = sorted(
    path.stem
    for paper in (
        "achille2019",
        "golatkar2019",
        "huang2023",
        "kleinman2023",
        "park2022",
        "pawlak2025",
    )
    for path in STUDIES.glob(f"{paper}_*.yaml")
    if path.stem not in MINI
)
# These have no small ones: what they train on is made on the fly.
MADE = {name for name in FULL if "stereograms" in name or "moving_digits" in name}


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("cifar10"), train=8, test=4)


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mnist(tmp_path_factory.mktemp("mnist"))


@pytest.fixture(scope="module")
def kinetics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kinetics")
    write_videos(root, MovingDigitsDataModule(label="motion"), train=12, val=8)
    return root


def plan_of(name: str, *overrides: str) -> Plan:
    study = read_study(STUDIES / f"{name}.yaml", overrides)
    return make_plan(study, *resolve(study))


@pytest.mark.parametrize("name", MINI)
def test_every_small_study_can_be_planned(name, cifar10):
    is_cifar10 = name.endswith("_cifar10_mini") or name == "kleinman2023_weak_eye_mini"
    small = [f"data.init_args.root={cifar10}", "data.init_args.limit_train=null"]
    if name == "achille2019_deficits_cifar10_mini":
        # The folder of generated images has three classes.
        three = "{class_path: LabelPermutation, init_args: {num_classes: 3}}"
        small.append(f"variants.label permutation={{deficit: {three}}}")
    plan = plan_of(name, *(small if is_cifar10 else []))
    assert plan.study == name
    assert (plan.epochs, plan.separate_epochs) == EPOCHS[name]
    shares = name not in ("huang2023_matrix_mini", "kleinman2023_kinetics_reconstruction_mini")
    assert (plan.epochs < plan.separate_epochs) is shares


@pytest.mark.parametrize("name", OWN)
def test_every_study_of_our_own_can_be_planned(name, cifar10):
    three = "{class_path: LabelPermutation, init_args: {num_classes: 3}}"
    small = [
        f"data.init_args.root={cifar10}", "data.init_args.limit_train=null",
        "data.init_args.val_split=0",
        f"variants.label permutation={{deficit: {three}}}",
    ]  # fmt: skip
    plan = plan_of(name, "seeds=[0]", *(small if "cifar10" in name else []))
    assert plan.epochs == OWN[name]
    if name in EPOCHS:
        runs = pd.read_csv(STUDIES.parent / "results" / name / "results.csv")
        assert EPOCHS[name][0] == OWN[name] * runs["seed"].nunique()
    if plan.design is not None:
        (removal,) = plan.design.removal
        one = [s for s in plan.segments.values() if s.window == (0, 0)]
        longest = removal + plan.design.epochs_after[-1]
        assert sum(s.stop - s.start for s in one) <= 1.25 * longest


def test_the_command_for_folders_of_faces_names_both_of_them(capsys):
    roots = ["--data.root=RAF-DB", "--trainer.callbacks.init_args.data.init_args.root=AFFECTNET"]
    config = str(STUDIES.parent / "huang2023_folders.yaml")
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--config", config, *roots, "--print_config"])
    printed = capsys.readouterr().out
    assert "root: RAF-DB" in printed and "root: AFFECTNET" in printed


def test_every_small_study_has_a_full_one():
    scales = {name.removesuffix("_mini").removesuffix("_cifar10") for name in MINI}
    assert scales == set(FULL) - MADE
    assert list(CUTS) == FULL


# A curve needs three ends of a deficit.
CURVE = "windows={removal: [0, 1, 2], epochs_after: 1}"
SHORT = "windows={removal: [1], epochs_after: 1}"
WHOLE = "windows={onset: [0], epochs: 1}"
LATE = "windows={onset: [0, 1], epochs: 2}"
SLIDING = "windows={onset: [0, 1], length: 1, epochs: 2}"
PLANE = "windows={onset: [0, 1], length: [1, 2], epochs: 3}"
FISHER = "{class_path: FisherMonitor, init_args: {every_n_epochs: 1, samples: 2}}"
NATS = "{class_path: WeightInformationMonitor, init_args: {samples: 4, steps: 2}}"
WIDTH = "model.init_args.network.init_args.width"
DEPTHS = "vary={model.init_args.network.init_args.depth: [1, 3]}"
BLUR = "{class_path: Blur, init_args: {factor: 4}}"
RSV = "{class_path: SourceVarianceMonitor, init_args: {layers: [trunk.stage4], pairs: 2}}"
BITS = "{class_path: UsableInformationMonitor}"
MANY = "{class_path: ReconstructionMonitor, init_args: {every_n_epochs: 1, samples: 4}}"
ENCODER = "{class_path: SourceVarianceMonitor, init_args: {layers: [encoder], pairs: 2}}"
RESTARTED = "[{class_path: LearningRateRestart}]"
SUBSET = "{class_path: SubsetWindow, init_args: {share: 0.5}}"

# What a study of agents becomes in rooms of one cell each.
ROOMS = "{size: 5, layouts: 8, val_layouts: 4, limit: 8}"
AGENTS = [
    "trainer.accelerator=cpu", f"set.data.init_args.environment.init_args={ROOMS}",
    "set.data.init_args.environments=4", "set.model.init_args.steps=8",
    "set.model.init_args.network.init_args={in_features: 100, outputs: 4, hidden: [4]}",
    "set.model.init_args.critic.init_args={in_features: 100, outputs: 1, hidden: [4]}",
    "set.trainer.callbacks=[{class_path: AgentMonitor, init_args: {samples: 4}}]",
]  # fmt: skip
KINDS = ("potential", "helper", "demonstration")

# What a study on videos becomes on two dozen of them.
SMALL = "{width: 8, depth: 1, heads: 2, patch: 8, image_size: 16, num_classes: 400}"
TINY = [
    "trainer.accelerator=cpu", "trainer.devices=1", "trainer.precision=32-true", "num_threads=1",
    f"model.init_args.network.init_args={SMALL}", "data.init_args.image_size=16",
    "data.init_args.batch_size=4", "data.init_args.num_workers=0", "data.init_args.delay=1",
]  # fmt: skip

STEREOGRAMS = (
    "data.init_args.size=8", "data.init_args.batch_size=200", "trainer.limit_val_batches=2",
)  # fmt: skip
EYES = RSV.replace("stage4", "stages.3").replace("pairs: 2", "samples: 16, pairs: 2")
WITH_RSV = (*STEREOGRAMS, f"set.trainer.callbacks=[{EYES}]")

# How each is cut short, and which figures it has beside the curve.
CUTS: dict[str, tuple[list[str], list[str]]] = {
    "achille2019_architectures": (
        [SHORT, "variants.ResNet-18={model.init_args.network: {class_path: ResNet18, init_args: "
         "{width: 4}}}"],
        [],
    ),
    "achille2019_deficits": (
        [SHORT, "variants.label permutation={deficit: {class_path: LabelPermutation, init_args: "
         "{num_classes: 3}}}"],
        [],
    ),
    "achille2019_depth": ([SHORT, DEPTHS], ["surface"]),
    "achille2019_layers": (
        [SHORT, f"set.trainer.callbacks=[{FISHER}, {NATS}]"], ["fisher", "layers"],
    ),
    "achille2019_mnist": ([CURVE, "model.init_args.network.init_args.hidden=[8, 6, 5, 4, 3]"], []),
    "achille2019_schedules": ([SHORT], []),
    "achille2019_sensitivity": (
        [SLIDING, f"set.trainer.callbacks=[{FISHER}]"], ["fisher", "layers", "sensitivity"],
    ),
    "achille2019_surface": ([PLANE], ["sensitivity", "surface"]),
    "achille2019_width": ([SHORT, f"vary={{{WIDTH}: [4, 6]}}"], ["surface"]),
    "golatkar2019_dropout": ([SHORT], []),
    "golatkar2019_early": ([SHORT], []),
    "golatkar2019_late": ([LATE], []),
    "huang2023_matrix": (["windows.epochs_after=1"], ["cross"]),
    "huang2023_remedies": (
        [SHORT, "recovery={bias reset: [{class_path: BiasReset}], gradual change: "
         "[{class_path: GradualChange, init_args: {removal: 1}}]}"], ["remedies"],
    ),
    "huang2023_transfer": ([CURVE, "variants=null"], []),
    "kleinman2023_depth": ([SHORT, DEPTHS], ["surface"]),
    "kleinman2023_dissociation": ([SHORT, f"set.trainer.callbacks=[{RSV}]"], ["rsv"]),
    "kleinman2023_information": (
        [SHORT, f"set.trainer.callbacks=[{RSV}, {BITS}]"], ["information", "rsv"],
    ),
    "kleinman2023_kinetics_masked": (
        [SLIDING, f"set.trainer.callbacks=[{ENCODER}, {MANY}]", "trainer.check_val_every_n_epoch=1",
         "model.init_args.decoder_width=8", *(f"finetuning.{one}" for one in TINY),
         "finetuning.trainer.max_epochs=2", f"finetuning.trainer.callbacks=[{ENCODER}]"],
        ["reconstruction_pretraining", "rsv_finetuning", "rsv_pretraining", "sensitivity"],
    ),
    "kleinman2023_kinetics_reconstruction": (
        ["windows={removal: [0], epochs_after: 2}", f"set.trainer.callbacks=[{MANY}]",
         "trainer.check_val_every_n_epoch=1", "model.init_args.decoder_width=8"],
        ["reconstruction"],
    ),
    "kleinman2023_kinetics_supervised": (
        [SLIDING, f"set.trainer.callbacks=[{ENCODER}]"],
        ["rsv_dissociation", "rsv_label_noise", "sensitivity"],
    ),
    "kleinman2023_moving_digits_one_frame": (
        [WHOLE, "model.init_args.network.init_args.width=24",
         "model.init_args.network.init_args.depth=1", "data.init_args.batch_size=20"],
        [],
    ),
    "kleinman2023_stereograms_dissociation": ([SHORT, *WITH_RSV], ["rsv"]),
    "kleinman2023_stereograms_one_eye": ([WHOLE, *STEREOGRAMS], []),
    "kleinman2023_stereograms_weak_eye": ([CURVE, *WITH_RSV], ["rsv"]),
    "kleinman2023_weak_eye": ([SHORT, f"set.trainer.callbacks=[{RSV}]"], ["rsv"]),
    "park2022_misleading": ([SHORT], ["agent"]),
    "park2022_onsets": ([SLIDING], [f"agent_{kind}" for kind in KINDS]),
    "park2022_stages": ([LATE], ["agent"]),
    "pawlak2025_restart": (
        # A tenth of two dozen images is too few.
        [SHORT, f"variants={{blur: {{deficit: {BLUR}, trainer.callbacks: {RESTARTED}}}, "
         f"half of the data: {{window: {SUBSET}, trainer.callbacks: {RESTARTED}}}}}"],
        [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FULL)
def test_every_full_study_gives_its_tables_and_figures(
    name, cifar10, mnist, kinetics, tmp_path, monkeypatch
):
    cuts, figures = CUTS[name]
    drawn: list[str] = []

    def draw(figure: Figure, path: Path) -> None:
        """Into nothing: what files they become is tested elsewhere, and takes longer."""
        figure.draw_without_rendering()
        drawn.append(path.name)

    monkeypatch.setattr(report, "save", draw)
    if name in MADE:
        always = ["seeds=[0]", "data.init_args.limit_train=30", "trainer.check_val_every_n_epoch=1"]
    elif "park2022" in name:
        always = ["seeds=[0]", *AGENTS]
    elif "huang2023" in name:
        data = "class_path: ImageFolderDataModule"
        pictures = f"{{{data}, init_args: {{root: {cifar10}, size: 32, crop_size: 28}}}}"
        always = [
            "seeds=[0]", "num_threads=1", "trainer.accelerator=cpu", "trainer.precision=32-true",
            "model.init_args.network={class_path: AllCNN, init_args: {width: 4, num_classes: 7}}",
            f"data={pictures}", f"set.data={pictures}", f"window.init_args.data={pictures}",
            "window.init_args.mapping=null",
        ]  # fmt: skip
        if name == "huang2023_matrix":
            both = f"{{AffectNet: {pictures}, RAF-DB: {pictures}}}"
            monitor = f"{{class_path: CrossDatasetMatrix, init_args: {{datasets: {both}}}}}"
            variants = f"{{AffectNet: {{data: {pictures}}}, RAF-DB: {{data: {pictures}}}}}"
            always = [*always[:5], f"variants={variants}"]
            always.append(
                f"set.trainer.callbacks=[{monitor}, {{class_path: ConfusionMatrixMonitor}}]"
            )
    elif "kinetics" in name:
        always = ["seeds=[0]", f"data.init_args.root={kinetics}", *TINY]
        if name == "kleinman2023_kinetics_masked":
            always.append(f"finetuning.data.init_args.root={kinetics}")
    else:
        root = mnist if name == "achille2019_mnist" else cifar10
        always = [
            "seeds=[0]", "num_threads=1", "trainer.accelerator=cpu", "trainer.precision=32-true",
            "data.init_args.batch_size=10", f"data.init_args.root={root}",
        ]  # fmt: skip
        if name != "achille2019_mnist":
            always.append(f"set.{WIDTH}=4")
    plan = plan_of(name, *always, *cuts)
    folder = StudyFolder(tmp_path / "out")
    folder.write_plan(plan)
    worker.work(folder)
    errors = [folder.segment(segment).error for segment in plan.segments]
    assert [error.read_text() for error in errors if error.exists()] == []

    kinds = (
        "agent", "cross", "fisher", "layers", "information", "reconstruction", "remedies", "rsv",
    )  # fmt: skip
    tables = [f"{kind}.csv" for kind in kinds if any(one.startswith(kind) for one in figures)]
    tables = ["results.csv", "curve.csv", *tables]
    names = figures if figures == ["reconstruction"] else ["curve", *figures]
    assert sorted(report.write_report(folder, plan)) == sorted(
        [*tables, *(f"{n}.png" for n in names)]
    )
    assert sorted(drawn) == sorted(names)

    results = read_table(folder.path / "results.csv")
    assert len(results) == len(plan.runs)
    assert_finite(
        results, "reconstruction_other_view", "pretrained_reconstruction_own_view",
        "final_accuracy", "fisher_trace", "rsv_polarization", "information_view_1",
        "critic_fisher",
    )  # fmt: skip
    assert ("rsv_polarization" in results) == ("rsv.csv" in tables)
    points = read_table(folder.path / "curve.csv")
    # What needs deficits that end at several epochs, and an accuracy.
    is_curve = points["removal"][points["onset"] == 0].nunique() > 2
    is_curve = is_curve and set(points["onset"]) == {0}
    is_curve = is_curve and "golatkar" not in name and "huang2023" not in name
    assert ("critical_removal" in points) is is_curve
    if "reconstruction" not in figures:
        measure = "success_area" if "park2022" in name else "final_accuracy"
        assert_finite(points, measure, f"{measure}_control", f"{measure}_difference")
    variants = {run.variation.get("variant", "") for run in plan.runs}
    assert set(points.get("variant", [""])) == variants
    if "layers" in figures:
        layers = read_table(folder.path / "layers.csv")
        longest = max(run.window.epochs for run in plan.runs)
        assert set(layers["epoch"]) == set(range(longest))
        assert layers["layer"].nunique() > 3
        assert_finite(layers, "fisher_trace")


def assert_finite(table: pd.DataFrame, *wanted: str) -> None:
    columns = [column for column in wanted if column in table]
    assert columns and np.isfinite(table[columns].to_numpy(dtype=float)).all()
