"""Just-in-time grants for sensitive tools."""

CONTROLS = ("IAM-03",)
