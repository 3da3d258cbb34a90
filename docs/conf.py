"""The documentation: ``make docs``."""

from importlib.metadata import version as installed_version

from sphinx.application import Sphinx

project = "kinto_orm"
author = "the kinto_orm developers"
project_copyright = "the kinto_orm developers"
version = release = installed_version("kinto-orm")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "kinto_orm"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_js_files = ["tables.js"]
html_copy_source = False

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

myst_enable_extensions = ["attrs_block", "colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
add_module_names = False
maximum_signature_line_length = 100


def skip_twins(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Leave out the awaited twins, which would double the page: they differ by their names only."""
    documentation = getattr(obj, "__doc__", None) or ""
    return True if name.startswith("a") and documentation.startswith(f"Like :meth:`{name[1:]}`") else None


def setup(app: Sphinx) -> None:
    """Connect the hooks."""
    app.connect("autodoc-skip-member", skip_twins)
