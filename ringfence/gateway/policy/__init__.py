"""Role-based access to tools, decided by Cedar (IAM-01)."""
