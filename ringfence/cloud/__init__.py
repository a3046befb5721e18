"""What the manifest means in AWS: pure functions, shared by the stacks and by validation."""
