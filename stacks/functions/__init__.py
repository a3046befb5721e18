"""Code that runs in AWS Lambda: one package per function, on what the runtime brings."""
