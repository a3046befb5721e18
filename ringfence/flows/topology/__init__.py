"""The network of a manifest as a picture, and a page around it."""
