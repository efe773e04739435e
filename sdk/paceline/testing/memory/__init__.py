"""The ports of `chalicelib.core.ports` in memory, by the rules of DynamoDB and SQS."""
