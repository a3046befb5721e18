"""Evidence of what happens, and alerts about it."""
