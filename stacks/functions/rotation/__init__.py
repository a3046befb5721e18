"""Rotates generated secrets, and reports overdue ones of every kind (IAM-08)."""
