"""Keys, secrets, and the defaults that keep data private and encrypted."""
