"""Results of a compliance run, as reports for people and for programs."""

from __future__ import annotations

from typing import NoReturn

import pytest


class NotApplicable(pytest.skip.Exception):
    """The property cannot be observed on this host; the message has the reason."""


class UnverifiedError(Exception):
    """A check could not run; the message is complete without a traceback."""


def not_applicable(reason: str) -> NoReturn:
    """End a check that cannot run here. It is counted separately, never as passed.

    Use it only for a property that the host cannot have or show ("no AppArmor in this kernel").
    A property that is possible but absent is a failure.
    """
    __tracebackhide__ = True
    if not reason.strip():
        raise ValueError("not_applicable() needs the reason that the report will show")
    raise NotApplicable(reason)
