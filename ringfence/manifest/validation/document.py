"""Reads one YAML document from an untrusted file, with the place of every value.

The size is limited and the file is parsed event by event, so that neither size nor nesting nor
aliases can exhaust the machine. Values that YAML 1.1 and 1.2 readers understand differently (`no`,
`022`, `1.10`, `2026-07-28`) are refused: an editor, Ansible and this package must read the same
document.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.resolver import Resolver

from ringfence.manifest.validation.problem import DocumentPath, Problem, Violation, dotted
from ringfence.manifest.validation.wording import quoted

MAX_BYTES = 1024 * 1024
MAX_NODES = 50_000
MAX_DEPTH = 32
MAX_VIOLATIONS = 200
"""No more than these are listed: the file is not a manifest."""

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

UNPRINTABLE = re.compile(
    "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069"
    "\ufeff\ufffe\uffff]"
)
"""Control characters, line ends that editors do not count, and characters that hide text."""
LINE_END = re.compile(r"\r\n|\r|\n")

CONSTANTS = {"true": True, "false": False, "null": None, "~": None, "": None}
WHOLE_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
YAML_1_2_NUMBER = re.compile(
    r"0o[0-7]+|0x[0-9a-fA-F]+|[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
)

REMEDIES = {
    "mapping values are not allowed": "quote text that holds ': ', or correct the indentation",
    "did not find expected key": "correct the indentation, or quote the text before it",
    "did not find expected '-'": "correct the indentation of the list",
    "did not find expected ','": "close the bracket, or quote text that holds , : [ ] { or }",
    "did not find expected node content": "quote the text, or close the bracket",
    "found unexpected ':'": 'quote the text, an IPv6 address for example: "fd00::1"',
    "could not find expected ':'": "write 'key: value', or quote text of several lines",
    "cannot start any token": "quote text that begins with @, ` or %",
    "unexpected end of stream": "close the quote or the bracket",
    "unknown escape": "write \\\\ for a backslash, or use single quotes",
    "block sequence entries": "begin a list on its own line, or use [a, b]",
}


class UnreadableError(Exception):
    """The file cannot be read as one YAML document."""

    def __init__(self, message: str, line: int = 0, column: int = 0, path: DocumentPath = ()):
        super().__init__(message)
        self.message, self.line, self.column, self.path = message, line, column, path


@dataclass
class YamlNode:
    """A YAML node and its position."""

    line: int
    column: int
    event: Any
    items: list[YamlNode] = field(default_factory=list)
    """Elements of a list; keys and values of a mapping, alternating."""


@dataclass
class YamlPosition:
    """Line and column of a value and of its key, and the positions inside it."""

    at: tuple[int, int]
    key: tuple[int, int] | None = None
    children: dict[str | int, YamlPosition] = field(default_factory=dict)


@dataclass
class Document:
    file: str
    value: Any
    place: YamlPosition
    violations: list[Violation]
    """Violations that the reader found; the value contains the likely meaning."""

    def problem(self, violation: Violation) -> Problem:
        """Add line and column to a violation: those of the nearest value around a missing one."""
        place = self.place
        missing = False
        for step in violation.path:
            if step not in place.children:
                missing = True
                break
            place = place.children[step]
        at_key = violation.on_key or missing or place.children
        at = violation.at or (place.key if at_key and place.key else place.at)
        return Problem(self.file, *at, dotted(violation.path), violation.message)


def read(path: Path) -> str:
    """Read the text of a regular file; never wait for a pipe or a device.

    Raises `UnreadableError`.
    """
    try:
        # Without O_NONBLOCK, opening a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UnreadableError("there is no such file; name an environment.yaml") from None
    except PermissionError:
        raise UnreadableError("cannot be read: permission denied; change its permissions") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableError(f"cannot be opened ({reason}); name an environment.yaml") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise UnreadableError("is a directory; name the environment.yaml in it")
        if not stat.S_ISREG(mode):
            raise UnreadableError("is not a regular file; name an environment.yaml")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UnreadableError(f"cannot be read ({error.strerror}); check the disk") from None
    finally:
        os.close(descriptor)
    if len(data) > MAX_BYTES:
        raise UnreadableError(f"is larger than {MAX_BYTES // 1024} KiB; name an environment.yaml")
    return _text(data)


def _text(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableError("the file is UTF-16; save it as UTF-8", 1, 1)
    if data.startswith(b"\xef\xbb\xbf"):
        raise UnreadableError("the file begins with a byte order mark; save it without", 1, 1)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        message = f"the byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise UnreadableError(message, *_place(before)) from None
    if bad := UNPRINTABLE.search(text):
        message = f"the character U+{ord(bad.group()):04X} is not allowed here; remove it"
        raise UnreadableError(message, *_place(text[: bad.start()]))
    return text


def _place(before: str) -> tuple[int, int]:
    lines = LINE_END.split(before)
    return len(lines), len(lines[-1]) + 1


def parse(text: str, file: str) -> Document:
    """Parse the one document in a text. Raises `UnreadableError`."""
    stack: list[YamlNode] = []
    try:
        root = _tree(text, stack)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text, _path(stack)) from None
    except yaml.YAMLError as error:
        raise UnreadableError(f"this is not YAML: {error}", 1, 1) from None
    if root is None or (_is_plain(root) and root.event.value in ("", "~", "null")):
        raise UnreadableError("the document is empty; begin with 'ringfence: 1'", 1, 1)
    reader = _Reader()
    value, place = reader.read(root, ())
    return Document(file, value, place, reader.violations)


def _tree(text: str, stack: list[YamlNode]) -> YamlNode | None:
    """Return the root node of a text. Nodes are kept on `stack`: no input can exhaust Python's."""
    root = None
    count = documents = 0
    for event in yaml.parse(text, Loader=LOADER):
        node = YamlNode(event.start_mark.line + 1, event.start_mark.column + 1, event)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                message = "a second document begins; keep one environment in a file"
                raise UnreadableError(message, node.line, node.column)
        elif isinstance(event, yaml.NodeEvent):
            count += 1
            if count > MAX_NODES:
                message = f"more than {MAX_NODES} values; split the environment"
                raise UnreadableError(message, node.line, node.column, _path(stack))
            if stack:
                stack[-1].items.append(node)
            else:
                root = node
            if isinstance(event, yaml.CollectionStartEvent):
                stack.append(node)
                if len(stack) > MAX_DEPTH:
                    message = f"nested deeper than {MAX_DEPTH} levels; correct the brackets"
                    raise UnreadableError(message, node.line, node.column, _path(stack[:-1]))
        elif isinstance(event, yaml.CollectionEndEvent):
            stack.pop()
    return root


def _path(stack: list[YamlNode]) -> DocumentPath:
    """Return the path of the parser's position, as far as keys are text."""
    path: list[str | int] = []
    for node in stack:
        if isinstance(node.event, yaml.SequenceStartEvent):
            path.append(max(len(node.items) - 1, 0))
        elif node.items:
            key = node.items[(len(node.items) - 1) // 2 * 2].event
            path.append(key.value if isinstance(key, yaml.ScalarEvent) else "?")
    return tuple(path)


def _is_plain(node: YamlNode) -> bool:
    return isinstance(node.event, yaml.ScalarEvent) and not node.event.style


def _syntax_error(error: yaml.MarkedYAMLError, text: str, path: DocumentPath) -> UnreadableError:
    problem = error.problem or "the text ends too early"
    mark = error.problem_mark or error.context_mark
    lines = LINE_END.split(text)
    row = min(mark.line, len(lines) - 1) if mark else 0
    column = mark.column if mark and row == mark.line else len(lines[row])
    if "\t" in lines[row][: column + 1]:
        message = "a tab; YAML is indented with spaces"
    else:
        remedy = next(
            (text for known, text in REMEDIES.items() if known in problem),
            "correct the line, or the one before it",
        )
        begun = error.context_mark
        context = f" in what began on line {begun.line + 1}" if begun and begun.line < row else ""
        message = f"this is not YAML: {problem}{context}; {remedy}"
    return UnreadableError(message, row + 1, column + 1, path)


class _Reader:
    """Turns nodes into values; for a refused one notes a violation and takes the likely meaning."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def read(self, node: YamlNode, path: DocumentPath) -> tuple[Any, YamlPosition]:
        place = YamlPosition((node.line, node.column))
        self._refuse_references(node, path)
        if isinstance(node.event, yaml.SequenceStartEvent):
            elements = []
            for number, item in enumerate(node.items):
                value, place.children[number] = self.read(item, (*path, number))
                elements.append(value)
            return elements, place
        if isinstance(node.event, yaml.MappingStartEvent):
            return self._mapping(node, path, place), place
        if isinstance(node.event, yaml.ScalarEvent):
            return self._scalar(node, path), place
        return "", place

    def _mapping(self, node: YamlNode, path: DocumentPath, place: YamlPosition) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        for key, item in zip(node.items[::2], node.items[1::2], strict=True):
            name = self._key(key, path)
            if name is None:
                continue
            child = (*path, name)
            if name in entries:
                first = place.children[name].key or place.at
                message = (
                    f"this key is already on line {first[0]}, column {first[1]}; "
                    "remove or rename one of the two"
                )
                self._note(key, child, message)
                continue
            entries[name], place.children[name] = self.read(item, child)
            place.children[name].key = (key.line, key.column)
        return entries

    def _key(self, node: YamlNode, path: DocumentPath) -> str | None:
        if not isinstance(node.event, yaml.ScalarEvent):
            message = (
                "a key is text, not a list, a mapping or an alias; templates such as "
                "{{ x }} do not work here, write the value out"
            )
            self._note(node, path, message)
            return None
        name = node.event.value
        child = (*path, name)
        self._refuse_references(node, child)
        if name == "<<" and _is_plain(node):
            self._note(node, child, "merge keys are not allowed; write the entries out")
            return None
        value = self._scalar(node, child)
        if not isinstance(value, str):
            self._note(node, child, f'a key is text; write "{quoted(name)[1:-1]}" with the quotes')
        return name

    def _refuse_references(self, node: YamlNode, path: DocumentPath) -> None:
        if isinstance(node.event, yaml.AliasEvent):
            self._note(
                node, path, f"the alias {quoted(node.event.anchor)} is not allowed; write it out"
            )
        elif node.event.anchor is not None:
            message = f"the anchor {quoted(node.event.anchor)} is not allowed; remove it"
            self._note(node, path, message)
        if tag := getattr(node.event, "tag", None):
            self._note(node, path, f"the tag {quoted(tag)} is not allowed; remove it")

    def _scalar(self, node: YamlNode, path: DocumentPath) -> str | int | bool | None:
        text = node.event.value
        if not _is_plain(node):
            if bad := UNPRINTABLE.search(text):
                code = f"U+{ord(bad.group()):04X}"
                self._note(node, path, f"the character {code} is not allowed here; remove it")
            return text
        if text in CONSTANTS:
            return CONSTANTS[text]
        if WHOLE_NUMBER.fullmatch(text):
            return int(text)
        if ambiguity := _ambiguity(text):
            self._note(node, path, ambiguity)
        return text

    def _note(self, node: YamlNode, path: DocumentPath, message: str) -> None:
        if len(self.violations) <= MAX_VIOLATIONS:
            self.violations.append(Violation(path, message, at=(node.line, node.column)))


def _ambiguity(text: str) -> str | None:
    """Return why text without quotes is ambiguous; None if every reader agrees on it."""
    resolvers = Resolver.yaml_implicit_resolvers
    candidates = resolvers.get(text[0], []) + resolvers.get(None, [])
    kinds = [tag.rpartition(":")[2] for tag, pattern in candidates if pattern.match(text)]
    kind = kinds[0] if kinds else "float" if YAML_1_2_NUMBER.fullmatch(text) else None
    shown = quoted(text)[1:-1]
    match kind:
        case None:
            return None
        case "bool":
            return f'{shown} is read as a truth value; write true or false, or quote it: "{shown}"'
        case "timestamp":
            return f'{shown} is read as a date; quote it: "{shown}"'
        case "int" | "float":
            return (
                f"{shown} is read as a number, and differently by different readers; "
                f'quote it: "{shown}", or write a whole decimal number'
            )
        case _:
            return f'{shown} is read as something else than text; quote it: "{shown}"'
