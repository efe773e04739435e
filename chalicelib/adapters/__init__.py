"""The world outside behind the ports: the only place that knows boto3."""
