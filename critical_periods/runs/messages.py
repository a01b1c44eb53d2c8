"""From jsonargparse's message, which lists all that it has tried, to the one thing that is wrong.

jsonargparse fails before there is a config to look at, so its message is all there is to go by.
"""

import ast
import inspect
import re
from pkgutil import resolve_name

import pytorch_lightning as pl

from critical_periods.core.errors import near
from critical_periods.core.internals import class_parameters
from critical_periods.runs.config_classes import classes_of

_KEYS_OF_A_CLASS = ("class_path", "init_args", "dict_kwargs")
_TOP_FIELDS = ("seed_everything", "trainer", "model", "data", "num_threads", "ckpt_path")
# Lines that say what a value may be in general, and not what is wrong with this one.
_BOILERPLATE = re.compile(
    r"NoneType|Given value|a class path \(str\)|a dict with|a dict without|Not a valid subclass|"
    r"Subclass types expect|Import path \S+ does not correspond to a subclass of|"
    r"Subtypes:|Errors:|Does not validate against|<unicode string>"
)

_BASE_CALLBACK = re.compile(
    r"\n *- Problem with given class_path '[\w.]*\.Callback':\n *Option .* is not accepted"
)


def sentence(message: str) -> str:
    r"""One sentence that names the field, its value and the way out, from jsonargparse's lines.

    Example:
        >>> tried = "Expected a <class 'int'>. Got value: x"
        >>> print(sentence('Parser key "data.width":\n  ' + tried))
        data.width is 'x', but must be int.
    """
    # Of a callback's field on the command line, what the base class would say, too.
    if message.count("Problem with given class_path") > 1:
        message = re.sub(_BASE_CALLBACK, "", message)
    # A message names its field part by part, some parts twice.
    field = ".".join(dict.fromkeys(re.findall(r'Parser key "([^"]+)"', message)))
    if "'NoneType' object has no attribute 'keys'" in message:
        return f"{field}.init_args is null, but must hold settings; leave it out."
    if found := re.search(r"the following arguments are required: (?:\w+\.)?([\w.]+)", message):
        return f"the field {found[1]!r} is missing."
    if found := re.match(r"unrecognized arguments: --([\w.]+)", message):
        return f"{message.rstrip('.')}; {_near_field(found[1])}"
    if text := _field_of_a_callback(message, field):
        return text
    # What the base class of callbacks would say of the last one's field is of no interest.
    message = _BASE_CALLBACK.sub("", message)
    of_kind = (
        _not_a_time,
        _unknown_class,
        _unknown_field,
        _not_a_class,
        _not_that_class,
        _wrong_type,
        _no_class_at_all,
    )
    told = (tell(message, field) for tell in of_kind)
    return next(filter(None, told), None) or innermost(message, field)


def innermost(message: str, field: str = "") -> str:
    r"""The innermost line of a nested message that says what is wrong, as a sentence.

    Example:
        >>> innermost("Does not validate:\n  - wrong colour", "data.sky")
        'data.sky: wrong colour.'
    """
    lines: list[str] = []
    for line in filter(str.strip, message.splitlines()):
        # What an item says may go on in further lines, which are indented more.
        before = lines[-1].strip() if lines else ""
        is_item = before.startswith("- ") and not before.endswith(":")
        is_more = is_item and not line.lstrip().startswith("- ")
        if is_more and not any(map(_BOILERPLATE.search, (before, line))):
            lines[-1] += " " + line.strip()
        else:
            lines.append(line)
    lines = [line for line in lines if not _BOILERPLATE.search(line)] or lines
    text = " ".join(_deepest(lines)[0].strip(" -").split()) if lines else ""
    text += "" if text.endswith((".", "?", "!")) else "."
    return text if not field or field in text else f"{field}: {text}"


def whole(message: str) -> str:
    r"""All that a class says of its settings, in one line; of a nested message the innermost.

    Example:
        >>> whole("width must be even.\n  It is 3")
        'width must be even. It is 3.'
    """
    if re.search("Parser key|Does not validate|Problem with given class_path", message):
        return innermost(message)
    text = " ".join(message.split())
    return text + ("" if text.endswith((".", "?", "!")) else ".")


def _field_of_a_callback(message: str, field: str) -> str | None:
    """What is wrong with a callback's field on the command line, which is the last callback's."""
    found = re.search(r"Given value: NestedArg\(key='([^']+)'", message)
    refused = found and re.search(rf"(Option '|arguments: --){re.escape(found[1])}\b", message)
    # A value of a field that there is may be wrong, too.
    is_there = found and f'Parser key "{found[1]}"' in message
    owner = re.search(r"Problem with given class_path '(?:[^']+\.)?([^'.]+)'", message)
    if not found or is_there or not (refused or owner is None) or not field.endswith("callbacks"):
        return None
    last = "of which there is none"
    if owner is not None and owner[1] != "Callback":
        last = f"{owner[1]}, which has none of that name"
    return (
        f"--{field}.{found[1]} would be a field of the last callback, {last}; change the config "
        f"file, or name the callback before it: --{field}+=CLASS."
    )


def _not_that_class(message: str, field: str) -> str | None:
    """A short name that several classes have, or a class of the other package of Lightning."""
    if several := re.search(r"Multiple subclasses with name (\w+)\..* ambiguity: (.*)\.", message):
        return f"{field}: {several[1]} may be {several[2].replace(', ', ' or ')}; name it in full."
    found = re.search(
        r"Import path (?:(\S+) )?does not correspond to a subclass of "
        r"(Callback|Logger|LightningModule|LightningDataModule)\b",
        message,
    )
    if not found:
        return None
    value = found[1] or re.findall(r"Given value: (\S+)", message)[-1]
    return (
        f"{value} at {field} is no {found[2]} of pytorch_lightning; take or derive it from that "
        "package, not from lightning.pytorch."
    )


def _not_a_time(message: str, field: str) -> str | None:
    found = re.search("Not of type timedelta: .* but got (.*)", message)
    form = 'hours, minutes, seconds, such as "0:30:00"'
    return found and f"{field} is {found[1]}, but must be a time: {form}."


def _unknown_class(message: str, field: str) -> str | None:
    found = re.search(r"Expected a dot import path string: (\S+)", message)
    # A text in place of a number has been taken for the name of a class, too.
    is_text = re.search(r"Expected an? <class '(int|float|bool)'>", message)
    if not found or (is_text and field != "trainer.logger"):
        return None
    if found[1] in classes_of(field):
        return f"the class {found[1]!r} does not fit at {field}; choose one that does."
    return f"unknown class {found[1]!r} at {field}; {near(found[1], classes_of(field))}"


def _unknown_field(message: str, field: str) -> str | None:
    """Which field is unknown: of a class, of the trainer or of the run."""
    found = re.search(r"Option '([^']+)' is not accepted", message)
    owners = re.findall(r"Problem with given class_path '([^']+)'", message)
    owners += re.findall(r"is not accepted\. Got value: Namespace\(class_path='([^']+)'", message)
    # A class with fields beside class_path has been taken for the settings of a wider class.
    if found and owners and found[1] != "class_path":
        owner = owners[-1].rsplit(".", 1)[-1]
        known = class_parameters(resolve_name(owners[-1]))
        if not known or owner in ("LightningModule", "LightningDataModule"):
            return f"{field} has no class_path, which names its class."
        return f"unknown field {found[1]!r} of {owner} at {field}; {near(found[1], known)}"
    if not found or found[1] == "class_path":
        found = re.search(r"does not accept (?:option|nested key) '([^']+)'", message)
    if not found:
        return None
    group = re.search(r"Group '([^']+)' does not accept", message)
    name = f"{group[1]}.{found[1]}" if group else found[1]
    return f"unknown field {name!r}; {_near_field(name)}"


def _not_a_class(message: str, field: str) -> str | None:
    """What is wrong with fields that should have been a class with its settings."""
    values = re.findall(r"(?:Got|Given) value: (\{.*\})", message)
    for value in values if "Not a valid subclass" in message else []:
        try:
            config = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            continue
        if "class_path" not in config:
            return f"{field} has no class_path, which names its class."
        if beside := [name for name in config if name not in _KEYS_OF_A_CLASS]:
            return (
                f"unknown field {beside[0]!r} beside class_path at {field}; the settings of a "
                "class stand under its init_args."
            )
    return None


def _wrong_type(message: str, field: str) -> str | None:
    """What a value should have been, from the innermost of the types that were tried."""
    lines = message.splitlines()
    expected = [line for line in lines if re.match(r"[ -]*Expected an? (?!path|dot)", line)]
    value = re.search(r"(?:Got|Given) value: (.*?)(?:\. Got value: .*)?$", message, re.MULTILINE)
    types = [re.sub(r".*?Expected an? |\. Got value: .*", "", line) for line in _deepest(expected)]
    types = list(dict.fromkeys(_plain(name.strip()) for name in types if "NoneType" not in name))
    if not (field and types and value):
        return None
    return f"{field} is {value[1]!r}, but must be {' or '.join(types)}."


def _no_class_at_all(message: str, field: str) -> str | None:
    """What is wrong with a value for which jsonargparse has no words of its own."""
    values = re.findall(r"Given value: (.*)", message)
    if not values or not innermost(message).startswith(("Parser key", "argument of type")):
        return None
    return f"{field} is {values[-1]}, but must be a class_path with its init_args."


def _plain(type_name: str) -> str:
    """A type as one would say it: ``int``, a list, or the values of a ``Literal``."""
    found = re.fullmatch(r"typing\.Literal\[(.*)\]|<class '(.*)'>", type_name)
    plain = (found[1] or found[2]) if found else type_name
    return "a list" if plain == "collections.abc.Sequence" else plain


def _near_field(name: str) -> str:
    """The fields nearest to one that there is not, of the trainer or of a whole run."""
    first, _, rest = name.partition(".")
    if first == "trainer":
        return near(rest, inspect.signature(pl.Trainer).parameters)
    # Of those that there may be, a study does not take all.
    return near(first, [field for field in _TOP_FIELDS if field != name])


def _deepest(lines: list[str]) -> list[str]:
    """The lines that are indented most."""
    depths = [len(line) - len(line.lstrip()) for line in lines]
    return [line for line, depth in zip(lines, depths, strict=True) if depth == max(depths)]
