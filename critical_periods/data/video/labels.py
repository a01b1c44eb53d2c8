"""From labels as they are written to class numbers."""

import re
from pathlib import Path

from critical_periods.core.errors import UserError
from critical_periods.data.class_folders import like, tell

# Tables and other programs write class 3 as 3.0, too.
_WHOLE = re.compile(r"([0-9]+)(\.0*)?")
# What is a number, but no class number, and is no name either beside class numbers.
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]*)?")
# Far more than any data set has; a larger class number is something else.
_MOST_CLASSES = 100_000


def number_labels(
    train: list[str], val: list[str], folders: bool = False
) -> tuple[list[str], list[int], list[int]]:
    """Class names, and the class number of each video.

    Labels that are all whole numbers (3 or 3.0) are class numbers already; otherwise the names that
    occur in training are sorted and numbered. Folders that are called 0 to K - 1 are class numbers,
    too; other numbers, such as years, are names where they are folders'. A warning says where
    classes have no videos.

    Args:
        train: labels of the training videos.
        val: labels of the validation videos.
        folders: whether all labels are names of folders.

    Returns:
        The K class names; the class numbers of the training and of the validation videos.

    Raises:
        UserError: validation has a class that training has not, a number is too high, or it is the
            only one in training and not 0.

    Example:
        >>> number_labels(["b", "a", "b"], ["a"])
        (['a', 'b'], [1, 0, 1], [0])
        >>> number_labels(["2", "0"], ["1"])
        (['0', '1', '2'], [2, 0], [1])
        >>> number_labels(["2019", "2020"], ["2020"], folders=True)
        (['2019', '2020'], [0, 1], [1])
    """
    whole = {label: _class_number(label) for label in {*train, *val}}
    known = {label: number for label, number in whole.items() if number is not None}
    is_counted = {*known.values()} == {*range(len(known))}
    if numbered := len(known) == len(whole) and (is_counted or not folders):
        highest = max(known.values(), default=0)
        if highest >= _MOST_CLASSES:
            raise UserError(f"a video has {_too_high(highest)}")
        names = [str(number) for number in range(highest + 1)]
        if highest and len(in_training := {known[label] for label in train}) == 1:
            raise UserError(
                f"all training videos have the class number {in_training.pop()}, beside which "
                "there is nothing to learn; correct the labels, or name the class."
            )
    else:
        names = sorted(set(train))
        if missing := sorted(set(val) - set(names)):
            raise UserError(
                f"the class {missing[0]!r} occurs in validation but not in training; both must "
                f"name their classes alike{like(missing[0], names)}"
            )
        known = {name: place for place, name in enumerate(names)}
    numbers = [known[label] for label in train], [known[label] for label in val]
    for split, found in zip(("training", "validation"), numbers, strict=True):
        if absent := sorted({*range(len(names))} - {*found}):
            why = " (the labels are whole numbers, and so class numbers)" if numbered else ""
            tell(
                f"{len(absent)} of the {len(names)} classes have no {split} videos, such as "
                f"{names[absent[0]]!r}{why}."
            )
    return names, *numbers


def check_labels(pairs: dict[int, tuple[str, str]], file: Path) -> None:
    """Raises a UserError where the labels of a list are neither all names nor all class numbers.

    Args:
        pairs: path and label of each line.
        file: the list.
    """
    numbers: dict[int, int] = {}
    names: dict[int, str] = {}
    for line, (_, label) in pairs.items():
        if label.startswith("-") and _NUMBER.fullmatch(label):
            raise UserError(
                f"line {line} of {file} has the label {label}, which is no class number but says "
                "that the video has none; leave such lines out, or give them their labels."
            )
        if (value := _class_number(label)) is not None:
            numbers[line] = value
        elif not _NUMBER.fullmatch(label):
            names[line] = label
    if numbers and names:
        (line, value), (other, name) = next(iter(numbers.items())), next(iter(names.items()))
        raise UserError(
            f"{file} has the class number {value} in line {line}, but the name {name!r} in line "
            f"{other}; number all of its classes, or name them all."
        )
    if len(numbers) == len(pairs) and (highest := max(numbers.values())) >= _MOST_CLASSES:
        line = next(line for line, value in numbers.items() if value == highest)
        raise UserError(f"line {line} of {file} has {_too_high(highest)}")


def _class_number(label: str) -> int | None:
    whole = _WHOLE.fullmatch(label)
    return int(whole[1]) if whole else None


def _too_high(number: int) -> str:
    return (
        f"the class number {number}, but numbers count from 0 and must be below {_MOST_CLASSES}; "
        "number the classes anew, or name them."
    )
