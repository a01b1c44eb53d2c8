"""The parsers of jsonargparse.

What their messages say is read in ``runs/messages.py``, and tested with a mistake each in
``tests/runs/mistakes.yaml``.
"""

from functools import cache
from inspect import Parameter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def set_option_type(parser: "ArgumentParser", option: str, kind: Any) -> None:
    """Gives an option of a jsonargparse parser another type than its class's signature says.

    jsonargparse tries the types of a union in their order, and Lightning's ``int | float`` comes
    to it as ``float | int``, so that 1, which means one batch, would become 1.0, all of them.
    """
    action: Any = parser._option_string_actions[option]
    action._typehint = kind


def add_option_type(parser: "ArgumentParser", option: str, kind: Any) -> None:
    """Has an option of a jsonargparse parser take values of one more type."""
    action: Any = parser._option_string_actions[option]
    action._typehint |= kind


@cache
def class_parameters(owner: type) -> dict[str, Parameter]:
    """The parameters of a class, those too that it passes on as ``**kwargs``.

    jsonargparse resolves them in the same way for its parsers, but gives only their names. A
    default that it cannot resolve is ``None`` here.
    """
    from jsonargparse._parameter_resolvers import UnknownDefault, get_signature_parameters

    return {
        one.name: Parameter(
            one.name,
            Parameter.KEYWORD_ONLY,
            default=None if isinstance(one.default, UnknownDefault) else one.default,
            annotation=one.annotation,
        )
        for one in get_signature_parameters(owner)
    }
