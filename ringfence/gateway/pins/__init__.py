"""Pinned tool definitions: a tool is what a person approved, or it is withheld."""

CONTROLS = ("TIN-01",)
