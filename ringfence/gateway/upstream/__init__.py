"""Connections to MCP servers and the answers that come back."""
