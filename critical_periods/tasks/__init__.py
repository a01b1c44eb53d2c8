"""Tasks: what a network is trained to do."""

from critical_periods.tasks.classification import ClassificationTask

__all__ = ["ClassificationTask"]
