"""What the site needs beside Sphinx's own: numbers from tables, a gallery, mathematics, links.

- the role ``{n}`` holds a call of a function of :mod:`tables` and gives its text;
- the directive ``{numbers}`` holds such a call whose text is Markdown, such as a table;
- the directive ``{gallery}`` shows every figure in ``experiments/results``;
- the directive ``{face}`` describes the names of a public package;
- the directive ``{schema}`` describes the fields of a study file;
- docstrings are plain text with formulas, of which reStructuredText is made;
- TeX becomes MathML, which browsers draw without a script from the network;
- references to a class by the module that defines it lead to the page of its public name.
"""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import tables
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective, SphinxRole

from critical_periods.studies.study_file import StudyFile

FACES = (
    "callbacks", "data", "deficits", "guidance", "linear", "metrics", "metrics.functional",
    "models", "plots", "reliability", "studies", "tasks",
)  # fmt: skip
"""The packages whose ``__all__`` is the public interface."""


def public_names() -> dict[str, list[str]]:
    """The names that each public package gives, by the package."""
    faces = [f"critical_periods.{face}" for face in FACES]
    return {face: list(getattr(import_module(face), "__all__", [])) for face in faces}


def evaluate(expression: str) -> str:
    """The text of a call such as ``loss("deficits_mini", variant="blur", removal=20)``."""
    return str(eval(expression, vars(tables).copy()))


class NumberRole(SphinxRole):
    """The role ``{n}``."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The text of the call in its place."""
        note_tables(self.env)
        try:
            parts = evaluate(self.text).split("`")
        except Exception as error:
            message = self.inliner.reporter.error(f"{self.text}: {error}", line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]
        # Every other part stood between backticks.
        kinds = [nodes.Text, lambda text: nodes.literal(text, text)]
        return [kinds[place % 2](text) for place, text in enumerate(parts)], []


class NumbersDirective(SphinxDirective):
    """The directive ``{numbers}``."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """The Markdown that the call gives, parsed."""
        note_tables(self.env)
        expression = "\n".join(self.content)
        try:
            text = evaluate(f"({expression}\n)")
        except Exception as error:
            raise self.error(f"{expression}: {error}") from error
        return self.parse_text_to_nodes(text)


class GalleryDirective(SphinxDirective):
    """The directive ``{gallery}``: each folder's figures under its name, with its command."""

    def run(self) -> list[nodes.Node]:
        """Sections of figures, as Markdown, parsed."""
        note_tables(self.env)
        here = Path(self.env.doc2path(self.env.docname)).parent
        lines = []
        for folder, row in tables.commands().items():
            figures = sorted((tables.RESULTS / folder).glob("*.png"))
            lines += [f"## `{folder}`", "", row["command"].join("``"), ""]
            for figure in figures:
                name = f"{folder}: {figure.stem.replace('_', ' ')}"
                lines += [f"![{name}]({os.path.relpath(figure, here)})", ""]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


class FaceDirective(SphinxDirective):
    """The directive ``{face}``: the names of a public package.

    Names of ``critical_periods.linear`` and ``critical_periods.guidance`` are described there.
    """

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """What autodoc makes of the package, and a reference for each name that has moved."""
        face = self.arguments[0]
        rooms = [f"critical_periods.{room}" for room in ("guidance", "linear")]
        theirs = {name: room for room in rooms for name in public_names()[room] if room != face}
        moved = [name for name in public_names()[face] if name in theirs]
        package = import_module(face)
        constants = [name for name in public_names()[face] if not callable(getattr(package, name))]
        lines = ["```{eval-rst}", f".. automodule:: {face}"]
        lines += [f"   :exclude-members: {', '.join([*moved, *constants])}"]
        for name in moved:
            there = f"{theirs[name]}.{name}"
            lines += ["", f".. py:class:: {name}", f"   :module: {face}", ""]
            lines += [f"   Is :class:`{there}`."]
        for name in constants:
            lines += ["", f".. py:data:: {name}", f"   :module: {face}", ""]
            lines += [f"   {line}" for line in constant_docstring(package, name)]
        return self.parse_text_to_nodes("\n".join([*lines, "```"]), allow_section_headings=True)


def constant_docstring(package: ModuleType, name: str) -> list[str]:
    """The text below a constant, in whichever module defines it."""
    for module in sorted(sys.modules):
        if module.startswith(package.__name__) and name in vars(sys.modules[module]):
            docs = ModuleAnalyzer.for_module(module).find_attr_docs()
            if ("", name) in docs:
                return docs["", name]
    return []


class SchemaDirective(SphinxDirective):
    """The directive ``{schema}``: the fields of a study file, from the model that checks it."""

    def run(self) -> list[nodes.Node]:
        """A table for each part of the file, as Markdown, parsed."""
        schema = StudyFile.model_json_schema()
        parts = {"A study": schema, **schema["$defs"]}
        headings = {"Removals": "`windows`, by removal", "Onsets": "`windows`, by onset"}
        headings |= {"Ladder": "`windows`, a ladder", "Adaptive": "`windows`, adaptive"}
        headings["AdaptiveSettings"] = "`windows.adaptive`"
        lines = []
        for title, part in parts.items():
            rows = [
                [f"`{name}`", kind_of(field), default_of(part, name), field["description"]]
                for name, field in part["properties"].items()
            ]
            name = headings.get(title, f"`{title.lower()}`" if title in schema["$defs"] else title)
            lines += [f"### {name}", "", part["description"].replace("``", "`"), ""]
            lines += [tables.markdown(["field", "type", "default", "what it says"], rows), ""]
        text = "\n".join(lines).replace("``", "`")
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def kind_of(field: dict[str, Any]) -> str:
    """The type of a field of a JSON schema in words."""
    if "anyOf" in field:
        found = [kind_of(one) for one in field["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(found))
    if "$ref" in field:
        return str(field["$ref"].rpartition("/")[2]).lower()
    if field.get("type") == "array":
        return f"list of {kind_of(field['items'])}s"
    if field.get("type") == "object" and "class_path" in field.get("properties", {}):
        return "class"
    words = {"integer": "whole number", "string": "text", "object": "mapping", None: "value"}
    return words.get(field.get("type"), str(field.get("type")))


def default_of(part: dict[str, Any], name: str) -> str:
    """The default of a field, or that it is required."""
    if name in part.get("required", []):
        return "required"
    default = part["properties"][name].get("default")
    return "" if default in (None, {}) else f"`{default}`"


def note_tables(env: BuildEnvironment) -> None:
    """Has the page read again when a committed table, or what reads it, changes."""
    for path in [*tables.RESULTS.glob("**/*.csv"), Path(tables.__file__), Path(__file__)]:
        env.note_dependency(str(path))


def _mathml(self: Any, node: nodes.Element) -> None:
    is_block = isinstance(node, nodes.math_block)
    self.body.append(tex2mathml(node.astext(), as_block=is_block))
    raise nodes.SkipNode


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.TextElement
) -> nodes.reference | None:
    """A reference to ``critical_periods.deficits.blur.Blur`` leads to ``…deficits.Blur``."""
    target = node.get("reftarget", "")
    name = target.rpartition(".")[2]
    if node.get("refdomain") != "py" or not target.startswith(("critical_periods.", name)):
        return None
    python = env.domains.python_domain
    for face, names in public_names().items():
        if name in names and target in (name, f"{face}.{name}", _defined(face, name)):
            kind = node.get("reftype")
            return python.resolve_xref(
                env, node["refdoc"], app.builder, kind, f"{face}.{name}", node, contnode
            )
    return None


def _defined(face: str, name: str) -> str:
    thing = getattr(import_module(face), name)
    return f"{getattr(thing, '__module__', '')}.{name}"


_HEADING = re.compile(r"\w+:")
# Of code nothing; a bar, the star of *units, a letter that would be taken for an item's number.
_SPECIAL = re.compile(r"(``.*?``)|\||(?<=[\[( ])\*(?=\w+[\],)])|(?<=: )[A-Z](?=\.$)")


def _escaped(found: re.Match[str]) -> str:
    return found[0] if found[1] else "\\" + found[0]


def plain_docstring(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Makes reStructuredText of docstrings that are plain text with formulas.

    An indented paragraph below one that is not indented and heads no section is a formula, and
    stays as it is; elsewhere ``|W|`` and ``[B, *units]`` mean what they look like.
    """
    result: list[str] = []
    above = ""  # the last line of the paragraph above
    kind = "text"
    for line in lines:
        if line.lstrip().startswith(">>>"):
            kind = "doctest"
        elif not result or not result[-1].strip():
            is_below_text = above and not above.startswith(" ") and not _HEADING.fullmatch(above)
            if line.startswith("    ") and (kind == "formula" or is_below_text):
                if kind != "formula" and not above.endswith("::"):
                    result += ["::", ""]
                kind = "formula"
            elif line.strip():
                kind = "text"
        result.append(_SPECIAL.sub(_escaped, line) if kind == "text" else line)
        if line.strip() and kind != "formula":
            above = line
    lines[:] = result


_properties: dict[str, list[str]] = {}


def keep_property(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Keeps the text of a property from napoleon, which takes what stands before ":" for a type."""
    if what in ("attribute", "property"):
        _properties[name] = list(lines)


def restore_property(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Puts the text that :func:`keep_property` has kept in its place again."""
    lines[:] = _properties.pop(name, lines)


def skip(app: Sphinx, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """Leaves out what Python says of the fields of named tuples; the class's docstring has them."""
    is_field = str(getattr(obj, "__doc__", "")).startswith("Alias for field number")
    return True if is_field else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers all of it."""
    app.add_role("n", NumberRole())
    app.add_directive("numbers", NumbersDirective)
    app.add_directive("gallery", GalleryDirective)
    app.add_directive("schema", SchemaDirective)
    app.add_directive("face", FaceDirective)
    app.add_html_math_renderer("mathml", (_mathml, None), (_mathml, None))
    app.connect("missing-reference", resolve)
    app.connect("autodoc-skip-member", skip)
    # Napoleon, which reads the sections, comes at 500.
    app.connect("autodoc-process-docstring", plain_docstring, priority=400)
    app.connect("autodoc-process-docstring", keep_property, priority=401)
    app.connect("autodoc-process-docstring", restore_property, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
