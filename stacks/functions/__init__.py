"""Code of Lambda functions, one package each. It imports boto3 and the standard library only."""
