"""Pictures of segments, what stands in them, and what may reach what."""
