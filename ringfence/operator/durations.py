"""Durations on the command line, such as 30m."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if not match:
        raise ArgumentTypeError("write a number and s, m, h or d, such as 30m")
    return int(match[1]) * UNITS[match[2]]
