"""How Sphinx builds the site: ``make docs``, without the network, warnings as errors."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
os.environ.setdefault("WANDB_MODE", "disabled")

from site_extension import FACES  # noqa: E402

import critical_periods  # noqa: E402

project = "critical-periods"
author = "The critical-periods developers"
copyright = author
release = version = critical_periods.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "site_extension",
]
# Sphinx reads what lies below its own folder alone; .gitignore keeps these copies out.
for notebook in (HERE.parent / "notebooks").glob("*.ipynb"):
    (HERE / "notebooks").mkdir(exist_ok=True)
    shutil.copy2(notebook, HERE / "notebooks")

exclude_patterns = ["_build"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# The notebooks are committed with the outputs of `make notebooks`; tests run them anew.
nb_execution_mode = "off"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

# Names of other projects, whose inventories would have to be fetched, are not linked.
nitpicky = True
# Of our own, only public names have a page.
_PUBLIC = "|".join(face.replace(".", r"\.") for face in FACES)
nitpick_ignore_regex = [("py:.*", rf"(?!critical_periods\.({_PUBLIC})\.\w+$).*")]

html_theme = "furo"
html_title = "critical-periods"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
