"""A rehearsed environment as a picture: what is in it, where it stands, the page around it."""
