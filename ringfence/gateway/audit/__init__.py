"""The hash-chained audit log: each decision is recorded before it takes effect."""

CONTROLS = ("MON-01",)
