"""Access tokens, their proofs and their revocation (IAM-02)."""
