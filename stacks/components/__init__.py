"""One ComponentResource per file; what they declare is computed in `ringfence.cloud`."""
