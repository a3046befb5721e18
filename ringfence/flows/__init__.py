"""Connections between segments: declared in the manifest, and observed."""
