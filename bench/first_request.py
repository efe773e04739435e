"""`python -m bench.first_request paceline|bare`: imports, answers a submit with a stubbed transport, prints its cost.

Bare is an app of one Chalice route that makes the same three calls by the same two clients, and does nothing else.
"""

from __future__ import annotations

import json
import sys
import time

BEGUN = time.perf_counter(), time.process_time()

from bench.events import Context, submit_event  # noqa: E402
from bench.stub import ENVIRONMENT, Stub  # noqa: E402


def paceline() -> object:
    import app  # noqa: PLC0415

    return app.app(submit_event("ann"), Context())


def bare() -> object:
    import boto3  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415
    from chalice.app import Chalice, Response  # noqa: PLC0415

    app = Chalice(app_name="bare")
    config = Config(parameter_validation=False)

    @app.route("/api/v1/task", methods=["POST"])
    def submit() -> Response:
        dynamodb, sqs = boto3.client("dynamodb", config=config), boto3.client("sqs", config=config)
        assert app.current_request
        user_id = app.current_request.json_body["user_id"]
        key = {"user_id": {"S": user_id}, "item": {"S": "lane"}}
        dynamodb.update_item(TableName="t", Key=key, UpdateExpression="SET a = :a", ReturnValues="ALL_NEW")
        sqs.send_message(QueueUrl=ENVIRONMENT["QUEUE_URL"], MessageBody="{}", MessageGroupId=user_id)
        dynamodb.put_item(TableName="t", Item=key)
        return Response({"user_id": user_id}, status_code=202)

    return app(submit_event("ann"), Context())


def main() -> None:
    Stub().install(with_boto3=sys.argv[1] == "bare")
    answer = {"paceline": paceline, "bare": bare}[sys.argv[1]]()
    assert isinstance(answer, dict)
    assert answer["statusCode"] == 202, answer
    wall, cpu = time.perf_counter() - BEGUN[0], time.process_time() - BEGUN[1]
    print(json.dumps({"wall": wall * 1000, "CPU": cpu * 1000, "RSS": _resident_mb()}))


def _resident_mb() -> float:
    import resource  # noqa: PLC0415

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
