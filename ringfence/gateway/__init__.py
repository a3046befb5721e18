"""The MCP gateway: who may call which tool, with what data coming back."""

VERSION = "0.1.0"
"""Version of the whole of Ringfence. Hosts have this package without its metadata."""
