"""Pinned tool definitions (TIN-01)."""
