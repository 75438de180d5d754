"""Which errors pass by themselves: what ECS, EventBridge, Scheduler and the network answer."""

import pytest
from botocore import exceptions
from botocore.exceptions import ClientError

from retry_run_task.transient import transient


def answer(code: str, message: str = "", status: int = 400) -> ClientError:
    error = {"Code": code, "Message": message}
    return ClientError({"Error": error, "ResponseMetadata": {"HTTPStatusCode": status}}, "RunTask")  # type: ignore[typeddict-item]


THROTTLES = (
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "EC2ThrottledException",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "SlowDown",
    "PriorRequestNotComplete",
    "RequestTimeout",
    "RequestTimeoutException",
)


@pytest.mark.parametrize("code", [*THROTTLES, "ServerException", "InternalFailure"])
def test_throttles_and_server_errors_pass_by_name(code: str) -> None:
    assert transient(answer(code)) == code


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 599])
def test_throttles_and_server_errors_pass_by_status_whatever_their_name(status: int) -> None:
    assert transient(answer("Odd", status=status)) == "Odd"


@pytest.mark.parametrize("code", ["ClientException", "InvalidParameterException"])
@pytest.mark.parametrize(
    "message",
    [
        "Tasks provisioning capacity limit exceeded.",
        "Rate exceeded (ErrorCode: Throttling)",
        "EC2 said RequestLimitExceeded, sorry",
        "No Container Instances were found in your cluster.",
    ],
)
def test_what_ecs_wraps_passes_by_its_message(code: str, message: str) -> None:
    assert transient(answer(code, message)) == code
    assert transient(answer("AccessDeniedException", message)) is None


@pytest.mark.parametrize(
    "error",
    [
        exceptions.EndpointConnectionError(endpoint_url="x"),
        exceptions.ConnectTimeoutError(endpoint_url="x"),
        exceptions.ReadTimeoutError(endpoint_url="x"),
        exceptions.ConnectionClosedError(endpoint_url="x"),
        exceptions.HTTPClientError(error="x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_lost_connections_and_time_outs_pass(error: Exception) -> None:
    assert transient(error) == type(error).__name__


@pytest.mark.parametrize(
    "error",
    [
        answer("AccessDeniedException"),
        answer("ClusterNotFoundException"),
        answer("InvalidParameterException", "TaskDefinition is inactive"),
        answer("LimitExceededException"),
        answer("ExpiredTokenException", status=403),
        exceptions.NoCredentialsError(),
        ValueError("x"),
    ],
    ids=str,
)
def test_nothing_else_does(error: Exception) -> None:
    assert transient(error) is None


def test_an_answer_without_a_status_or_a_code_does_not_pass() -> None:
    assert transient(ClientError({"Error": {}}, "RunTask")) is None
