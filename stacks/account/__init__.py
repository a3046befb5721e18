"""Once per AWS account: records, detectors, guards and defaults that environments share."""
