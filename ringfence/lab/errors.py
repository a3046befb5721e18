"""Errors of the lab: one line each, with a remedy."""

from __future__ import annotations


class LabError(Exception):
    """A step of the lab failed."""

    exit_status = 1


class UnusableError(LabError):
    """This machine or this manifest cannot run a lab."""

    exit_status = 2
