"""The one exception type of the lab: its text is a line for a person, with the remedy in it."""

from __future__ import annotations


class LabError(Exception):
    """Something of the lab did not work."""

    exit_status = 1


class UnusableError(LabError):
    """This machine, or this manifest, cannot hold a lab."""

    exit_status = 2
