"""Once per environment: its network, keys and logs."""
