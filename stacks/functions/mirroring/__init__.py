"""Mirrors the traffic of every instance of an environment to its sensors (NET-04)."""
