"""Makes secrets that nobody types, and says which of the others are due (IAM-08).

Runs in Lambda with nothing but what is there: Python, and boto3.
"""
