"""The picture of a network as one self-contained HTML page."""

from __future__ import annotations

from ringfence.drawing import layout, templates
from ringfence.flows.topology import paths, picture
from ringfence.manifest.model import Environment

_templates = templates.beside(__file__)


def render(environment: Environment) -> str:
    """Return the page. Raises `NothingToDrawError`."""
    declared = paths.declared(environment)
    shown = picture.of(environment, declared)
    copies = picture.mirrored(environment)
    drawing = layout.of(shown, (*paths.arrows(environment, declared), *copies))
    return _templates.get_template("page.html.j2").render(
        environment=environment,
        paths=declared,
        copies=copies,
        drawing=drawing,
        kinds=tuple(dict.fromkeys(line.kind for line in drawing.lines)),
    )
