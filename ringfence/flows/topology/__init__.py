"""What the network of one manifest is: a picture of it, and a page around that."""
