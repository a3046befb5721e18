"""Takes an EC2 instance out of service when something is found on it, and puts it back on request.

Only boto3 and the standard library: this is all that the Lambda runtime has.
"""
