"""Identities: of hosts, of administrators, of people in the account."""
