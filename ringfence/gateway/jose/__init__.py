"""JSON Web Signatures and key sets (IAM-02)."""
