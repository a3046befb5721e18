"""Role-based access to tools, decided by Cedar."""

CONTROLS = ("IAM-01",)
