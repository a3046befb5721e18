"""The lab: an environment's hosts, booted on this machine. Production does not use it."""

from ringfence.lab.errors import LabError, UnusableError
from ringfence.lab.lab import Lab
from ringfence.lab.requirements import unavailable

__all__ = ["Lab", "LabError", "UnusableError", "unavailable"]
