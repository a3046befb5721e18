"""Has the traffic of every instance of an environment mirrored to its sensors.

Only boto3 and the standard library: this is all that the Lambda runtime has.
"""
