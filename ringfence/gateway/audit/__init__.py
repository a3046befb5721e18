"""The hash-chained audit log (MON-01)."""
