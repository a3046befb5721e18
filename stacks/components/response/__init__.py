"""Response to an attack."""
