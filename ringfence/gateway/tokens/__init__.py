"""Access tokens, their proofs and their revocation."""

CONTROLS = ("IAM-02",)
