"""Draw docs/architecture.svg from the imports of the code: `make architecture`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PICTURE = Path(__file__).with_suffix(".svg")
ROOMS = {"Ringfence": "ringfence", "The gateway": "ringfence.gateway"}
"""Package by title: each of its packages becomes a box."""

HEAD = """digraph {
  bgcolor="white"; rankdir=TB; ranksep=0.35; nodesep=0.25; fontname="Helvetica"; compound=true;
  node [shape=box, style="rounded,filled", fillcolor="#eef3fb", color="#5b7db1",
        fontname="Helvetica", fontsize=11, height=0.3];
  edge [color="#8a94a6", arrowsize=0.6];
"""


def dot() -> str:
    """The picture as Graphviz reads it."""
    graph = grimp.build_graph("ringfence", "stacks", cache_dir=None)
    clusters = "".join(_cluster(title, arrows(graph, package)) for title, package in ROOMS.items())
    return f"{HEAD}{clusters}}}\n"


def arrows(graph: grimp.ImportGraph, package: str) -> list[tuple[str, str]]:
    """Imports between packages: the ones beside each other in `package`, and the stacks."""
    rooms = sorted(
        child
        for child in graph.find_children(package)
        if graph.find_children(child) or (ROOT / child.replace(".", "/")).is_dir()
    )
    if package == "ringfence":
        rooms.append("stacks")
    return [
        (importer.rpartition(".")[2], imported.rpartition(".")[2])
        for importer in rooms
        for imported in rooms
        if importer != imported
        and graph.direct_import_exists(importer=importer, imported=imported, as_packages=True)
    ]


def digest(text: str) -> str:
    return f"<!-- drawn from {sha256(text.encode()).hexdigest()} -->"


def main() -> None:
    text = dot()
    # `tred` leaves out arrows that follow from others.
    reduced = _run(["tred"], text)
    svg = _run(["dot", "-Tsvg"], reduced)
    PICTURE.write_text(f"{svg.rstrip()}\n{digest(text)}\n")


def _cluster(title: str, imports: Iterable[tuple[str, str]]) -> str:
    key = title.lower().replace(" ", "_")
    names = sorted({name for pair in imports for name in pair})
    nodes = "".join(f'    {key}_{name} [label="{name}"];\n' for name in names)
    lines = "".join(f"    {key}_{one} -> {key}_{other};\n" for one, other in imports)
    style = 'style="rounded"; color="#c3cad6"; fontsize=13;'
    return f'  subgraph cluster_{key} {{\n    label="{title}"; {style}\n{nodes}{lines}  }}\n'


def _run(command: list[str], text: str) -> str:
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
