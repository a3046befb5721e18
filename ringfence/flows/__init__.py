"""Connections between segments: what the manifest declares, and what was seen."""
