"""Deploys a stage (stack, functions, API) to LocalStack or AWS, and destroys it."""
