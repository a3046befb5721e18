"""Why a command of the operator did not do what it should, in one line for a terminal."""

from __future__ import annotations


class InputError(Exception):
    """The arguments or the manifest do not allow it. Exit status 2."""


class OperationError(Exception):
    """A gateway, a server or a policy prevented it. Exit status 1."""
