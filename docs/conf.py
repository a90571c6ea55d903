"""Sphinx's settings for the course as a site (see build.py). No page asks another machine for anything."""

import importlib.util
import shutil
from pathlib import Path

project = "Build a large language model, and see how it works"
html_title = "Build a large language model"
language = "en"

extensions = ["myst_nb"]
nb_execution_mode = "off"  # the committed outputs are shown
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_all_links_external = True  # build.py has made addresses of them already

html_theme = "furo"
html_favicon = "icon.svg"
html_static_path = ["site.css", "site.js"]
html_js_files = ["site.js"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"

# MathJax from a package, not from a content delivery network: the parts that pages load.
mathjax_path = "mathjax/tex-chtml.js"
mathjax3_config = {"options": {"enableMenu": False}}  # what the menu offers needs parts that are left out
MATHJAX = "tex-chtml.js", "output/chtml/fonts", "input/tex/extensions", "a11y"


def copy_mathjax(app, error):
    if error is None:
        package = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent
        for part in MATHJAX:
            origin, target = (base / "mathjax" / part for base in (package / "static", Path(app.outdir) / "_static"))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(origin, target) if origin.is_dir() else shutil.copyfile(origin, target)


def setup(app):
    app.connect("build-finished", copy_mathjax)
