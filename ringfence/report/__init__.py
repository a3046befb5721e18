"""Results of a compliance run, in their forms for people and programs."""

from __future__ import annotations

from typing import NoReturn

import pytest


class NotApplicable(pytest.skip.Exception):
    """The property cannot be observed on this host, and the message says why."""


class UnverifiedError(Exception):
    """A check could not be made, and its message says all there is to say."""


def not_applicable(reason: str) -> NoReturn:
    """End a check that cannot be made here. Counted apart, never as passed.

    Only for what the host cannot have or show ("no AppArmor in this kernel");
    a property that is merely absent is a failure.
    """
    __tracebackhide__ = True
    if not reason.strip():
        raise ValueError("not_applicable() needs the reason that the report will show")
    raise NotApplicable(reason)
