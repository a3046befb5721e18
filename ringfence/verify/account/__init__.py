"""AWS semantics: what policies, routes and event patterns of an account allow."""
