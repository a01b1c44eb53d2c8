"""From jsonargparse's account of everything that it has tried to the one thing that is wrong."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterable

import pytorch_lightning as pl
import torch

import critical_periods.callbacks as callbacks
import critical_periods.data as data
import critical_periods.deficits as deficits
import critical_periods.models as models
import critical_periods.tasks as tasks
from critical_periods.core.errors import near

_TOP_FIELDS = ("seed_everything", "trainer", "model", "data", "num_threads", "ckpt_path")

# The classes that a field takes, by its last name.
_CLASSES: dict[str, list[str]] = {
    "model": tasks.__all__,
    "data": data.__all__,
    "network": models.__all__,
    "deficit": deficits.__all__,
    "callbacks": callbacks.__all__ + pl.callbacks.__all__,
    "optimizer": torch.optim.__all__,
    "lr_scheduler": torch.optim.lr_scheduler.__all__,
}

_BOILERPLATE = re.compile(
    r"NoneType|Given value|a class path \(str\)|a dict with|a dict without|Not a valid subclass|"
    r"Subclass types expect|Subtypes:|Errors:|Does not validate against|<unicode string>"
)


def sentence(message: str) -> str:
    r"""One sentence that names the field, its value and the way out.

    Args:
        message: of a jsonargparse error: nested lines, one for each type that was tried.

    Example:
        >>> tried = "Expected a <class 'int'>. Got value: x"
        >>> print(sentence('Parser key "data.width":\n  ' + tried))
        data.width is 'x', but must be int.
    """
    field = _field(message)
    missing = re.search(r"the following arguments are required: (?:\w+\.)?([\w.]+)", message)
    unknown_class = re.search(r"Expected a dot import path string: (\S+)", message)
    unknown_option = re.search(r"Option '([^']+)' is not accepted", message)
    unknown_key = re.search(r"does not accept (?:option|nested key) '([^']+)'", message)
    if "'NoneType' object has no attribute 'keys'" in message:
        return f"{field}.init_args is null, but must hold settings; leave it out."
    group = re.search(r"Group '([^']+)' does not accept", message)
    owners = re.findall(r"Problem with given class_path '([^']+)'", message)
    owners += re.findall(r"is not accepted\. Got value: Namespace\(class_path='([^']+)'", message)
    if missing:
        return f"the field {missing[1]!r} is missing."
    arguments = re.match(r"unrecognized arguments: --([\w.]+)", message)
    if arguments:
        return f"{message.rstrip('.')}; {_near_field(arguments[1])}"
    # A number that is none might have been a path to something, too.
    if unknown_class and not re.search(r"Expected an? <class '(int|float|bool)'>", message):
        name, known = unknown_class[1], [*_classes(field)]
        if name in known:
            return f"the class {name!r} does not fit at {field}; choose one that does."
        return f"unknown class {name!r} at {field}; {near(name, known)}"
    if unknown_option and unknown_option[1] == "class_path":
        # A class with fields beside class_path was taken for the settings of a wider class.
        unknown_option = None
    if unknown_option and not owners:
        unknown_key = unknown_option
    elif unknown_option:
        option, owner = unknown_option[1], owners[-1]
        short = owner.rsplit(".", 1)[-1]
        if short in ("LightningModule", "LightningDataModule"):
            return f"{field} has no class_path, which names its class."
        return f"unknown field {option!r} of {short} at {field}; {near(option, _parameters(owner))}"
    if unknown_key:
        name = f"{group[1]}.{unknown_key[1]}" if group else unknown_key[1]
        return f"unknown field {name!r}; {_near_field(name)}"
    return (
        _not_a_class(message, field)
        or _wrong_type(message, field)
        or _no_class_at_all(message, field)
        or deepest(message, field)
    )


def _near_field(name: str) -> str:
    """The fields nearest to one that there is not, of the trainer or of a whole run."""
    first, _, rest = name.partition(".")
    if first == "trainer":
        return near(rest, inspect.signature(pl.Trainer).parameters)
    return near(first, _TOP_FIELDS)


def _field(message: str) -> str:
    """The field that a message is of, which it names part by part, some parts twice."""
    names: list[str] = []
    for key in re.findall(r'Parser key "([^"]+)"', message):
        if key not in names:
            names.append(key)
    return ".".join(names)


def _not_a_class(message: str, field: str) -> str | None:
    """What is wrong with fields that should have been a class with its settings."""
    if "Not a valid subclass" not in message:
        return None
    for value in re.findall(r"(?:Got|Given) value: (\{.*\})", message):
        try:
            tree = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            continue
        strange = [name for name in tree if name not in ("class_path", "init_args", "dict_kwargs")]
        if "class_path" not in tree:
            return f"{field} has no class_path, which names its class."
        if strange:
            return (
                f"unknown field {strange[0]!r} beside class_path at {field}; the settings of a "
                "class stand under its init_args."
            )
    return None


def _no_class_at_all(message: str, field: str) -> str | None:
    """What is wrong with a value for which jsonargparse has no words of its own."""
    has_none = deepest(message).startswith(("Parser key", "argument of type"))
    value = re.findall(r"Given value: (.*)", message)
    if not has_none or not value:
        return None
    return f"{field} is {value[-1]}, but must be a class_path with its init_args."


def _wrong_type(message: str, field: str) -> str | None:
    """What a value should have been, from the innermost of the types that were tried."""
    lines = message.splitlines()
    expected = [line for line in lines if re.match(r"[ -]*Expected an? (?!path|dot)", line)]
    if not expected or not field:
        return None
    innermost = _innermost(expected)
    types = [re.sub(r".*?Expected an? |\. Got value: .*", "", line).strip() for line in innermost]
    types = list(dict.fromkeys(_plain(name) for name in types if "NoneType" not in name))
    value = re.search(r"(?:Got|Given) value: (.*?)(?:\. Got value: .*)?$", message, re.MULTILINE)
    if not types or not value:
        return None
    return f"{field} is {value[1]!r}, but must be {' or '.join(types)}."


def _plain(type_name: str) -> str:
    """A type as one would say it: ``int``, a list, or the values of a ``Literal``."""
    choices = re.fullmatch(r"typing\.Literal\[(.*)\]", type_name)
    built_in = re.fullmatch(r"<class '(.*)'>", type_name)
    plain = choices[1] if choices else built_in[1] if built_in else type_name
    return "a list" if plain == "collections.abc.Sequence" else plain


def deepest(message: str, field: str = "") -> str:
    r"""The innermost complaint of a nested message, as a sentence.

    Example:
        >>> deepest("Does not validate:\n  - wrong colour", "data.sky")
        'data.sky: wrong colour.'
    """
    lines = [line for line in message.splitlines() if line.strip()]
    lines = [line for line in lines if not _BOILERPLATE.search(line)] or lines
    inner = _innermost(lines)[0] if lines else ""
    text = " ".join(inner.strip(" -").split())
    text += "" if text.endswith((".", "?", "!")) else "."
    return text if not field or field in text else f"{field}: {text}"


def _innermost(lines: list[str]) -> list[str]:
    depths = [len(line) - len(line.lstrip()) for line in lines]
    return [line for line, depth in zip(lines, depths, strict=True) if depth == max(depths)]


def _classes(field: str) -> Iterable[str]:
    last = field.rsplit(".", 1)[-1]
    return _CLASSES.get(last) or [name for room in _CLASSES.values() for name in room]


def _parameters(path: str) -> list[str]:
    module, name = path.rsplit(".", 1)
    return list(inspect.signature(getattr(sys.modules[module], name)).parameters)
