"""The matrix of a study with a CrossDatasetMatrix: trained on each data set, tested on each."""

from critical_periods.studies.divergence import diverged_in, logged
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.plan import Plan
from critical_periods.studies.results import Row, settings, summary


def cross(study: StudyFolder, plan: Plan) -> list[Row]:
    """One row for each window and data set that was tested on at its end."""
    found: dict[str, tuple[Row, dict[str, dict[int, float]]]] = {}
    for run in plan.runs:
        segment, known = study.segment(run.segment), settings(run)
        if not segment.is_done() or diverged_in(study, plan, run.segment) is not None:
            continue
        _, by_tested = found.setdefault(repr(known), (known, {}))
        keys = [key for key in logged(segment) if key.startswith("cross/")]
        last = segment.history()[-1] if keys else {}
        for key in keys:
            if value := last[key]:
                by_tested.setdefault(key.removeprefix("cross/"), {})[run.seed] = float(value)
    rows = []
    for known, by_tested in found.values():
        for tested, accuracies in by_tested.items():
            row: Row = {**known, "tested": tested, "seeds": len(accuracies)}
            row |= summary("accuracy", accuracies.values())
            itself = {**known, "variant": tested}
            _, reference = found.get(repr(itself), ({}, {}))
            own: dict[int, float] = reference.get(tested, {})
            pairs = {seed: accuracies[seed] - own[seed] for seed in accuracies if seed in own}
            if pairs and itself != known:
                row |= summary("difference", pairs.values())
            rows.append(row)
    return rows
