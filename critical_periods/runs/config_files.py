"""Config files: those that a command line names, and reading their YAML."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from critical_periods.core.errors import UserError


def read_yaml(path: Path) -> dict[str, Any]:
    """The fields of a YAML file.

    Raises:
        UserError: the file does not exist, cannot be read, or holds no fields.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a YAML file in it.")
    if not path.is_file():
        raise UserError(f"the file {path} does not exist.")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"the file {path} cannot be read: {error}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"the file {path} is not in UTF-8; save it so.") from error
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds no fields; it must be a YAML mapping.")
    return tree


def parse_yaml(text: str, where: str) -> Any:
    """The value that a YAML text stands for; ``where`` names the text in an error.

    Raises:
        UserError: the text is not YAML.

    Example:
        >>> parse_yaml("{lr: 1e-3, views: [1]}", "here")
        {'lr': 0.001, 'views': [1]}
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).replace('in "<unicode string>", ', "").split())
        raise UserError(f"{where} is not valid YAML: {problem}.") from error


class _Loader(yaml.SafeLoader):
    """YAML 1.1, but 1e-3 is a number, as in Lightning, and a field that is there twice an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the field {key.value!r} is there twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def config_files(argv: Iterable[str]) -> list[str]:
    """The config files that a command line names.

    Example:
        >>> config_files(["fit", "--config", "a.yaml", "--config=b.yaml", "--data.width", "8"])
        ['a.yaml', 'b.yaml']
    """
    text = "\n".join(str(word) for word in argv)
    return re.findall(r"^(?:-c|--config)[\n=](.+)$", text, re.MULTILINE)
