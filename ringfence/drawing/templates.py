"""Templates of self-contained HTML pages with a picture."""

from __future__ import annotations

from pathlib import Path

import jinja2

from ringfence.drawing.curve import curve


def beside(module: str) -> jinja2.Environment:
    """Load templates from a module's folder, and those in this folder that they include."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(module).parent, Path(__file__).parent]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.globals["curve"] = curve
    return templates
