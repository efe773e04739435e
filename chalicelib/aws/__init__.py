"""Adapters for DynamoDB and SQS; the only files that import boto3."""
