"""MCP requests, held to the specification."""

CONTROLS = ("TIN-03",)
