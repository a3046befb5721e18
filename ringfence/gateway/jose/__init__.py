"""JSON Web Signatures and key sets."""

CONTROLS = ("IAM-02",)
