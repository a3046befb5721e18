"""Connections to MCP servers over mutual TLS 1.3, and the answers that come back."""

CONTROLS = ("DAT-03",)
