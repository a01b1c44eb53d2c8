"""The list of packages that Weights & Biases keeps with each run.

Its test is in ``tests/runs/test_tracking.py``, where W&B is at hand.
"""

from functools import cache


def list_packages_once() -> None:
    """Has the packages that are installed be listed once a process, not as each run begins.

    Their metadata is read for it, which takes longer than all the rest of beginning a run.
    """
    from wandb import util

    listed = getattr(util, "working_set", None)
    if listed is not None and not hasattr(listed, "cache_info"):
        util.working_set = cache(lambda: [*listed()])
