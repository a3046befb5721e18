"""MCP requests, held to the specification (TIN-03)."""
