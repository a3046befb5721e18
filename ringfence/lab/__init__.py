"""The lab: an environment's hosts, booted on this machine. Nothing here is part of production."""

from ringfence.lab.errors import LabError, UnusableError
from ringfence.lab.lab import Lab
from ringfence.lab.requirements import unavailable

__all__ = ["Lab", "LabError", "UnusableError", "unavailable"]
