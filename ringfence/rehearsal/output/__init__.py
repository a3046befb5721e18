"""Output of a rehearsal: a tree of resources, a bill, a Terraform plan."""
