"""State that all processes of a gateway share, and the clock by which it ends."""
