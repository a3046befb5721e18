"""The manifest: its typed model, how it is built, and its validation."""
