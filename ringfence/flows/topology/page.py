"""The picture as one HTML page that needs nothing beside itself."""

from __future__ import annotations

from ringfence.drawing import layout, templates
from ringfence.flows.topology import picture, ways
from ringfence.manifest.model import Environment

_templates = templates.beside(__file__)


def render(environment: Environment) -> str:
    """Raises `ways.NothingToDrawError`."""
    declared = ways.declared(environment)
    shown = picture.of(environment, declared)
    copies = picture.mirrored(environment)
    drawing = layout.of(shown, (*ways.arrows(environment, declared), *copies))
    return _templates.get_template("page.html.j2").render(
        environment=environment,
        ways=declared,
        copies=copies,
        drawing=drawing,
        kinds=tuple(dict.fromkeys(line.kind for line in drawing.lines)),
    )
