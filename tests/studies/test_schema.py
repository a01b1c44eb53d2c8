"""The JSON schema of study files: as committed, and as strict as reading them is."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from small_study import STUDY, changed
from test_study_file import MISTAKES, ONSETS

from critical_periods.cli import main
from critical_periods.runs.config_files import read_yaml

LADDER = {"removal": [2], "epochs_after": [2, 3, 4, 6], "cooldown": 2}
STUDIES = Path(__file__).parents[2] / "experiments" / "studies"
SCHEMA = STUDIES / "study.schema.json"


def mistakes(fields: dict[str, Any]) -> list[str]:
    schema = json.loads(SCHEMA.read_text())
    Draft202012Validator.check_schema(schema)
    return [error.message for error in Draft202012Validator(schema).iter_errors(fields)]


def test_the_committed_schema_is_up_to_date(capsys):
    assert main(["study", "schema"]) == 0
    assert capsys.readouterr().out == SCHEMA.read_text()


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_our_study_files_name_the_schema_and_fit_it(path):
    assert path.read_text().startswith("# yaml-language-server: $schema=study.schema.json\n")
    assert mistakes(read_yaml(path)) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"windows": ONSETS},
        {"windows": ONSETS | {"length": [1, 2]}},
        {"windows": {"onset": [0], "epochs": 3}},
        {"deficit": None, "window": {"class_path": "SubsetWindow", "init_args": {"share": 0.5}}},
        {"finetuning": {"base": "finetuning.yaml", "set": {"trainer.max_epochs": 2}}},
        {"set": {"model.init_args.lr": 1e-3}, "vary": {"num_threads": [1, None]}, "seeds": None},
        {"variants": {"plain": {}, "flip": {"deficit": {"class_path": "VerticalFlip"}}}},
        {"threshold": 0.05},
        {"windows": LADDER, "verdict": {"margin": 0.01}, "calibration_seeds": [9]},
    ],
)
def test_every_form_fits_the_schema(changes):
    assert mistakes(changed(STUDY, changes)) == []


# What no schema can know of: files, names with dots, one number compared with another.
UNKNOWN = (
    "set seeds", "set windows", "onset=", "nosuch", "text", "cannot be set", "nan",
    "must increase", "longer than", "is of a ladder; give", "at least 4", "counts", "no variant",
)  # fmt: skip
REFUSED = [one["set"] for one in MISTAKES["fields"] if not any(of in one["says"] for of in UNKNOWN)]


@pytest.mark.parametrize("changes", [{"window": {"class_path": "SubsetWindow"}}, *REFUSED], ids=str)
def test_what_is_refused_does_not_fit_the_schema(changes):
    assert mistakes(changed(STUDY, changes)) != []
