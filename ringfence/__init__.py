"""Ringfence: infrastructure as code and hardening for MCP environments."""
