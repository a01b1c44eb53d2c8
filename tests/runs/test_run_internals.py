"""Internals of jsonargparse still do what core/internals.py leans on them for."""

from __future__ import annotations

from typing import Any

import pytest
from jsonargparse import ArgumentParser

from critical_periods.core.internals import class_parameters, set_option_type


@pytest.mark.parametrize(("kind", "parsed"), [(int | float, int), (float | int, float)])
def test_the_types_of_an_option_are_tried_in_order(kind, parsed):
    parser = ArgumentParser()
    parser.add_argument("--batches", type=str)
    set_option_type(parser, "--batches", kind)
    assert type(parser.parse_args(["--batches=1"]).batches) is parsed


class Base:
    def __init__(self, size: int, name: str | None = None) -> None: ...


class Derived(Base):
    def __init__(self, width: float = 2, **settings: Any) -> None:
        super().__init__(**settings)


class Conditional(Base):
    def __init__(self, **settings: Any) -> None:
        super().__init__(settings.pop("size", 3 if settings else 4), **settings)


def test_parameters_that_are_passed_on_are_known():
    found = class_parameters(Derived)
    assert {name: one.annotation for name, one in found.items()} == {
        "width": float, "size": int, "name": str | None,
    }  # fmt: skip
    assert (found["width"].default, found["size"].default) == (2, found["size"].empty)


def test_a_default_that_is_not_known_may_be_null():
    assert class_parameters(Conditional)["size"].default is None
