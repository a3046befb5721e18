"""What Ringfence promises of an AWS account, as a policy pack that `pulumi up` asks first."""
