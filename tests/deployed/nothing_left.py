"""Lists all that a LocalStack holds, whatever its name; fails when that is anything.

It shares no code with what destroyed the stage.
"""

import sys

import localstack_client.session

#: Service, question, and the key of the answer that lists what is there.
LISTINGS = (
    ("apigateway", "get_rest_apis", "items"),
    ("cloudformation", "describe_stacks", "Stacks"),
    ("cloudwatch", "describe_alarms", "MetricAlarms"),
    ("cloudwatch", "list_dashboards", "DashboardEntries"),
    ("dynamodb", "list_tables", "TableNames"),
    ("events", "list_rules", "Rules"),
    ("iam", "list_roles", "Roles"),
    ("lambda", "list_functions", "Functions"),
    ("lambda", "list_event_source_mappings", "EventSourceMappings"),
    ("logs", "describe_log_groups", "logGroups"),
    ("secretsmanager", "list_secrets", "SecretList"),
    ("sqs", "list_queues", "QueueUrls"),
)


def main() -> int:
    session = localstack_client.session.Session()
    anything = False
    for service, operation, key in LISTINGS:
        found = [thing for thing in getattr(session.client(service), operation)().get(key, []) if not is_record(thing)]
        print(f"{service} {operation}: {found or 'nothing'}")
        anything = anything or bool(found)
    return 1 if anything else 0


def is_record(thing: object) -> bool:
    """LocalStack lists stacks that are gone, as AWS does for 90 days, but for all who ask."""
    return isinstance(thing, dict) and thing.get("StackStatus") == "DELETE_COMPLETE"


if __name__ == "__main__":
    sys.exit(main())
