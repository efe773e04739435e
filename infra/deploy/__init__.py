"""Brings a stage to LocalStack or AWS and takes it away again: the stack, the functions, the API in front of them."""
