"""The Fisher trace of each layer through training with its standard error over seeds.

    python experiments/benchmarks/traces.py FOLDER [--figure FILE]

reads the folder of a study whose runs have a ``FisherMonitor`` and prints the rows of
``traces.csv``: for each window, epoch and layer (``network`` for all of them) the mean over seeds
of the trace, in nats² per squared unit of weight, and of the layer's share of the network's, each
with its standard error, sd / √n. Where it was measured by steps, ``epoch`` is the share of epochs
that have passed. Of one seed the network's standard error is that over the samples. The figure has
the network's trace, by logarithm, in a band of one standard error.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from critical_periods.plots import plot_measure, save
from critical_periods.studies import LoadedStudy, load_study
from critical_periods.studies.measurements import block
from critical_periods.studies.results import known

WINDOW = ["onset", "removal", "epochs"]
PREFIX = "fisher/trace"


def by_steps(study: LoadedStudy) -> pd.DataFrame | None:
    """What was measured between the epochs of all runs, if anything was."""
    found = [
        pd.read_csv(path).assign(**known(run))
        for run in study.plan.runs
        for one in study.plan.lineage(run.segment)
        if (path := study.folder.segment(one.name).path / "fisher" / "steps.csv").exists()
    ]
    return pd.concat(found) if found else None


def traces(history: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard error by window, epoch and layer, of the history of a study's runs."""
    names = [name for name in history if name.split("/")[:2] == PREFIX.split("/")]
    keys = [*WINDOW, "seed", "epoch"]
    long = history.melt(keys, names, "layer", "trace").dropna(subset="trace")
    long["layer"] = [
        block(name.removeprefix(PREFIX).strip("/")) or "network" for name in long["layer"]
    ]
    of_seeds = long.groupby([*keys, "layer"], sort=False)["trace"].sum().reset_index()
    whole = of_seeds[of_seeds["layer"] == "network"].set_index(keys)["trace"].rename("whole")
    of_seeds["share"] = of_seeds["trace"] / of_seeds.join(whole, on=keys)["whole"]
    found = (
        of_seeds.groupby([*WINDOW, "epoch", "layer"], sort=False)
        .agg(
            seeds=("trace", "count"),
            fisher_trace=("trace", "mean"), fisher_trace_se=("trace", "sem"),
            share=("share", "mean"), share_se=("share", "sem"),
        )
        .reset_index()
    )  # fmt: skip
    if f"{PREFIX}_se" in history:
        errors = history.groupby([*WINDOW, "epoch"])[f"{PREFIX}_se"].first()
        of_samples = found.join(errors, on=[*WINDOW, "epoch"])[f"{PREFIX}_se"]
        is_alone = (found["seeds"] == 1) & (found["layer"] == "network")
        found["fisher_trace_se"] = found["fisher_trace_se"].mask(is_alone, of_samples)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", help="of a study")
    parser.add_argument("--figure", type=Path, help="without an ending")
    options = parser.parse_args()
    study = load_study(options.folder)
    steps = by_steps(study)
    found = traces(study.history if steps is None else steps)
    found.to_csv(sys.stdout, index=False, float_format="%.6g", lineterminator="\n")
    if options.figure is not None:
        rows = found[found["layer"] == "network"]
        rows = rows.rename(columns={"fisher_trace_se": "fisher_trace_sd"})
        figure = plot_measure(rows, "fisher_trace", "Trace of the Fisher information")
        figure.axes[0].set_yscale("log")
        figure.axes[0].yaxis.set_major_formatter("{x:,g}")
        figure.axes[0].set_xlabel("Epochs that have passed")
        save(figure, options.figure)


if __name__ == "__main__":
    main()
