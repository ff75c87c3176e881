"""Sphinx configuration."""

import os

from sphinx_gallery.sorting import ExplicitOrder

from sklearn_lpntk import __version__

# the progress bars of a library that an example loads are no output of it
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

project = "sklearn-lpntk"
author = "the sklearn-lpntk developers"
copyright = "2026, the sklearn-lpntk developers"
release = version = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinx-mathjax-offline",
]
exclude_patterns = [
    "_build",
    "bench_table.rst",
    "harm_table.rst",
    "scale_table.rst",
    "auto_examples/*.ipynb",
]
BEFORE_TRAINING = ("wrong_labels", "class_entanglement", "choose_architecture")
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    # run at every build, ten seconds each; the others train networks for minutes
    "filename_pattern": f"(how_to/.*|{'|'.join(BEFORE_TRAINING)})\\.py$",
    "subsection_order": ExplicitOrder(["../examples/how_to", "."]),
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("sklearn_lpntk",),
    "ignore_pattern": r"pruning_study\.py$",  # imported by prune_digits and prune_mnist
    "reference_url": {"sklearn_lpntk": None},
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
}
autosummary_generate = True
autodoc_default_options = {
    "members": True,
    "inherited-members": False,
    # written by scikit-learn, with references into its own documentation
    "exclude-members": "set_fit_request, set_score_request",
}
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

html_theme = "pydata_sphinx_theme"
html_title = "sklearn-lpntk"
html_theme_options = {"show_nav_level": 2, "navigation_with_keys": False}
html_static_path = ["_static"]
templates_path = ["_templates"]
html_css_files = ["site.css"]
toc_object_entries_show_parents = "hide"
html_sidebars = {page: [] for page in ("index", "user_guide", "pruning", "own_net", "changelog")}
