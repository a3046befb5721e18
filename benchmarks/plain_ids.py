"""pytest plugin for mutmut, which selects tests by id: it keeps parameter values out of ids."""

from __future__ import annotations


def pytest_make_parametrize_id(argname: str) -> str:
    return argname
