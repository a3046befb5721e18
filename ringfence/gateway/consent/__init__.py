"""Just-in-time grants for sensitive tools (IAM-03)."""
