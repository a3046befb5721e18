"""Network of an environment: VPC, security groups, ACLs, endpoints, egress, names."""
