"""The control catalogue, and what serves each control."""
