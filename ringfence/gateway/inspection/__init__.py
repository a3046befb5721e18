"""Personal data and secrets in results and arguments, treated by data class."""

CONTROLS = ("DAT-01", "DAT-04", "DAT-05")
