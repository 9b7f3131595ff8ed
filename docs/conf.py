"""How the documentation is built: `sphinx-build -W docs docs/_build`."""

import importlib.metadata

project = "Cafetal"
author = "The Cafetal developers"
copyright = "The Cafetal developers"
release = importlib.metadata.version("cafetal")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.intersphinx"]
intersphinx_mapping = {}  # nothing is fetched while the pages are built
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "Cafetal"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
myst_links_external_new_tab = True

# The notebook is run each time, and a cell that fails ends the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_in_temp = True

default_role = "code"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
nitpicky = False
