"""Ringfence's rules for an AWS account, as a policy pack that `pulumi up` evaluates first."""
