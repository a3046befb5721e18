"""Personal data and secrets in results (DAT-04, DAT-05)."""
