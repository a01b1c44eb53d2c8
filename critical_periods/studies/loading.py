"""A study that was run, for a notebook: its tables as data frames and its trained networks."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn

from critical_periods.core.errors import UserError
from critical_periods.runs.lightning_cli import CLI
from critical_periods.studies.boundary import adaptive, boundary
from critical_periods.studies.divergence import diverged_in
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.measurements import TABLES, rsv_through_epochs
from critical_periods.studies.plan import Plan, Run
from critical_periods.studies.recovery import recovery
from critical_periods.studies.remedies import remedies
from critical_periods.studies.results import Row, curve, ended, known, marked, results
from critical_periods.studies.segment import segment_config
from critical_periods.studies.tables import as_table

_ROWS = {"results": results, "rsv_through_epochs": rsv_through_epochs, **TABLES}
_OF_RESULTS = {"remedies": remedies, "adaptive": adaptive, "boundary": boundary}


class LoadedStudy:
    """What the finished runs of a study give.

    The tables are made when they are first used, and are those that ``critical-periods study plot``
    writes; a table of what no run measured is empty. Those of measurements have a row for each
    window and epoch, means over the seeds that are done. They begin with ``variant`` and every
    varied field, ``stage`` (where runs end with fine-tuning: ``pretraining`` or ``finetuning``),
    ``onset``, ``removal``, ``epochs``, ``seeds``, ``epoch``; where a column has a sample standard
    deviation over several seeds, it ends in ``_sd``.
    """

    def __init__(self, folder: StudyFolder, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        self._rows: dict[str, list[Row]] = {}
        self._tables: dict[str, pd.DataFrame] = {}

    def rows(self, name: str) -> list[Row]:
        """The rows of a table by the name of its file, or ``rsv_through_epochs``; made once."""
        if name not in self._rows:
            if name == "curve":
                found = curve(self.plan, self.rows("results"))
            elif name == "recovery":
                found = recovery(self.plan, self.rows("results"))
            elif name in _OF_RESULTS:
                found = _OF_RESULTS[name](self.folder, self.plan, self.rows("results"))
            else:
                found = _ROWS[name](self.folder, self.plan)
            self._rows[name] = marked(self.plan, found)
        return self._rows[name]

    def table(self, name: str) -> pd.DataFrame:
        """What :meth:`rows` gives, as its file holds it."""
        if name not in self._tables:
            self._tables[name] = self._table(self.rows(name))
        return self._tables[name]

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row a run: :func:`~critical_periods.studies.results.results`.

        Its index is the run's place in ``plan.runs``.
        """
        places = [place for place, _, _ in ended(self.folder, self.plan)]
        return self.table("results").set_axis(places, axis="index")

    @cached_property
    def curve(self) -> pd.DataFrame:
        """A row a window, over seeds: :func:`~critical_periods.studies.results.curve`."""
        return self.table("curve")

    @cached_property
    def recovery(self) -> pd.DataFrame:
        """A row a removal and rung of a ladder, with its verdict.

        Columns: :func:`~critical_periods.studies.recovery.recovery`.
        """
        return self.table("recovery")

    @cached_property
    def remedies(self) -> pd.DataFrame:
        """A row a removal and remedy: :func:`~critical_periods.studies.remedies.remedies`."""
        return self.table("remedies")

    @cached_property
    def adaptive(self) -> pd.DataFrame:
        """A row a run that an adaptive study has chosen: what was predicted, and what came of it.

        Columns: :func:`~critical_periods.studies.boundary.adaptive`.
        """
        return self.table("adaptive")

    @cached_property
    def boundary(self) -> pd.DataFrame:
        """Of an adaptive study the loss over the plane of its axes, for ``plot_boundary``.

        Columns: :func:`~critical_periods.studies.boundary.boundary`.
        """
        return self.table("boundary")

    @cached_property
    def history(self) -> pd.DataFrame:
        """A row an epoch of every run, from its first, with all that was logged in it.

        Columns: ``variant`` and every varied field, ``stage`` where there are two, ``onset``,
        ``removal``, ``epochs``, ``seed``, ``epoch``, then the logged keys. Of a key that is not
        logged in every epoch, the others are nan.
        """
        rows: list[Row] = []
        for run in filter(self._is_done, self.plan.runs):
            for stage, name in self.plan.stages(run):
                rows += (known(run, stage) | epoch for epoch in self.folder.segment(name).history())
        return self._table(marked(self.plan, rows))

    @cached_property
    def fisher(self) -> pd.DataFrame:
        """Fisher traces of the whole network, where they were measured in several epochs.

        ``fisher_trace``, in nats² per squared unit of weight, and ``fisher_trace_sd``.
        """
        return self.table("fisher")

    @cached_property
    def layers(self) -> pd.DataFrame:
        """What each ``layer`` holds; its parts' traces and nats add up.

        ``fisher_trace``, in nats² per squared unit of weight, and ``information``, in nats.
        """
        return self.table("layers")

    @cached_property
    def information(self) -> pd.DataFrame:
        """Usable information, in bits: ``information_both``, ``information_view_0``, …."""
        return self.table("information")

    @cached_property
    def reconstruction(self) -> pd.DataFrame:
        """Errors of reconstruction, as shares of the pixels' variance.

        ``reconstruction_own_view``, ``reconstruction_other_view``, ``reconstruction_both_views``.
        """
        return self.table("reconstruction")

    @cached_property
    def rsv(self) -> pd.DataFrame:
        """Histograms of RSV at the end of the runs, a row a bin.

        ``layer`` (its units, or its channels averaged over positions: ``<layer>/channels``),
        ``low`` and ``high``, the edges of the bin, and ``share`` of all units and fixed pairs of
        all seeds.
        """
        return self.table("rsv")

    @cached_property
    def agent(self) -> pd.DataFrame:
        """An agent's ``success``, dormant units and the critic's Fisher trace through training.

        ``success``, ``policy_dormant``, ``critic_dormant``, ``critic_fisher``, each with ``_sd``.
        """
        return self.table("agent")

    @cached_property
    def regions(self) -> pd.DataFrame:
        """Of each ``region`` of pictures the ``energy`` of maps there, and accuracy ``without``.

        At each ``epoch`` that a ``RegionMonitor`` has measured.
        """
        return self.table("regions")

    @cached_property
    def cross(self) -> pd.DataFrame:
        """The ``accuracy`` on each data set that was ``tested`` on by a ``CrossDatasetMatrix``.

        With ``_sd``, ``_low`` and ``_high``; the same of the ``difference``, paired by seed, to the
        variant that is called as the data set is.
        """
        return self.table("cross")

    @cached_property
    def modes(self) -> pd.DataFrame:
        """Of each ``path`` and ``mode`` the ``strength``, and ``ode``, what theory says."""
        return self.table("modes")

    def network(self, run: int | pd.Series) -> nn.Module:
        """The network that a run has trained, on the CPU and in ``eval`` mode.

        Args:
            run: a row of :attr:`runs`, or its label in their index.

        Raises:
            UserError: the run is not done, or its checkpoint is damaged.
        """
        task = self.task(run)
        network: nn.Module = getattr(task, "network", task)
        return network

    def task(self, run: int | pd.Series) -> pl.LightningModule:
        """The LightningModule of a run with its trained network, as :meth:`network` gives that."""
        found = self._run(run)
        if not self._is_done(found):
            which = ", ".join(f"{name} {value}" for name, value in known(found).items())
            epoch = diverged_in(self.folder, self.plan, found.segment)
            if epoch is not None:
                raise UserError(
                    f"the run with {which} has no trained network, as it diverged in epoch {epoch}."
                )
            raise UserError(
                f"the run with {which} is not done, so it has no trained network; run the study "
                "again, which trains what is missing."
            )
        checkpoint = self.folder.segment(found.segment).checkpoint
        with self._built(found) as cli:
            task = cli.model
        try:
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)
            task.load_state_dict(state["state_dict"])
        # A file that was cut or altered makes torch, pickle and zipfile raise all kinds of errors.
        except Exception as error:
            raise UserError(
                f"{checkpoint} is damaged; run the study again, which trains its segment anew."
            ) from error
        return task.eval()

    def datamodule(self, run: int | pd.Series) -> pl.LightningDataModule:
        """The DataModule of a run, set up for training and validation; UserError without data."""
        with self._built(self._run(run)) as cli:
            cli.datamodule.prepare_data()
            cli.datamodule.setup("fit")
            return cli.datamodule

    def _table(self, rows: list[Row]) -> pd.DataFrame:
        table = as_table(rows)
        table.attrs["window"] = self.plan.kind_of_window
        return table

    def _is_done(self, run: Run) -> bool:
        return self.folder.segment(run.segment).is_done()

    def _run(self, run: int | pd.Series) -> Run:
        place = run
        if isinstance(run, pd.Series):
            # By what it says, as an index may have been reset.
            runs = self.runs.loc[:, :"seed"].drop(columns="study", errors="ignore")
            wanted = run.reindex(runs.columns)
            same = (runs == wanted) | (runs.isna() & wanted.isna())
            place = next(iter(runs.index[same.all(axis="columns")]), None)
        if not isinstance(place, (int, np.integer)) or not 0 <= place < len(self.plan.runs):
            raise UserError(
                "there is no such run in the study; give a row of `runs`, or its label in their "
                f"index, 0 to {len(self.plan.runs) - 1}."
            )
        return self.plan.runs[int(place)]

    @contextmanager
    def _built(self, run: Run) -> Iterator[CLI]:
        """A run on the CPU, without callbacks, under its own seed.

        Threads, random streams and environment stay those of whoever calls it; Lightning is silent.
        """
        config = segment_config(self.plan, self.plan.segments[run.segment])
        config["trainer"] = {"accelerator": "cpu", "devices": 1, "enable_checkpointing": False}
        config["num_threads"] = None
        environment, silenced = dict(os.environ), logging.root.manager.disable
        logging.disable(logging.INFO)
        try:
            with isolate_rng():
                yield CLI(config, run=False, logger=False)
        finally:
            logging.disable(silenced)
            for name in os.environ.keys() - environment.keys():
                del os.environ[name]
            os.environ.update(environment)


def load_study(folder: str | Path) -> LoadedStudy:
    """Opens the folder of a study that was run, even if not all of its runs are done.

    Args:
        folder: which ``critical-periods study run STUDY.yaml --output FOLDER`` has written.

    Raises:
        UserError: the folder holds no plan, or a damaged one.

    Example:
        After ``critical-periods study run experiments/studies/quickstart.yaml --output
        runs/quickstart``::

            from critical_periods.plots import plot_curve
            from critical_periods.studies import load_study

            study = load_study("runs/quickstart")
            study.runs.groupby("removal")["final_accuracy"].mean()
            study.history.query("seed == 0").pivot(
                index="epoch", columns=["removal", "epochs"], values="val/loss"
            ).plot()
            plot_curve(study.curve)
            network = study.network(study.runs.iloc[-1])
    """
    study = StudyFolder(Path(folder))
    return LoadedStudy(study, study.read_plan())
