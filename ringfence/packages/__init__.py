"""Packages of MCP servers: locked, fetched and built for hosts without a network."""
