"""Contains an EC2 instance after an attack, and releases it on request (IRP-01)."""
