"""Does an error of AWS pass by itself?"""

import re

from botocore import exceptions

# Throttles, whatever a service calls them, and what botocore itself retries in its standard mode
# (botocore/retries/standard.py). Most are not in the services' models: the name has to do.
_THROTTLE = re.compile(
    "Throttl|TooManyRequests|RequestLimitExceeded|RateExceeded|SlowDown|BandwidthLimitExceeded"
    "|RequestTimeout|PriorRequestNotComplete"
)

# Server errors, by name where a status is missing (ECS API reference, "Common errors", RunTask).
_SERVER_ERRORS = ("ServerException", "InternalFailure", "ServiceUnavailable")

# ECS wraps these into errors that also mean a bad request; only the message says which. The limit
# of tasks in provisioning; EC2's throttles (dagster#33439, dask-cloudprovider#56); a cluster whose
# instances are away, which is missing capacity (boto3#2862, aws-cdk#30171).
_WRAPPED = (
    "Tasks provisioning capacity limit exceeded",
    "Rate exceeded",
    "RequestLimitExceeded",
    "No Container Instances were found",
)


def transient(error: Exception) -> str | None:
    """The name of an error that passes by itself; None for any other.

    Those are server errors (HTTP 500 and above), throttles (429, or by name), lost connections and
    time-outs of botocore, and what ECS wraps.
    """
    if isinstance(error, exceptions.ConnectionError | exceptions.HTTPClientError):
        return type(error).__name__
    if not isinstance(error, exceptions.ClientError):
        return None
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = error.response["Error"].get("Code", "")
    message = error.response["Error"].get("Message", "")
    passes = (
        status >= 500
        or status == 429
        or code in _SERVER_ERRORS
        or _THROTTLE.search(code) is not None
        or (
            code in ("ClientException", "InvalidParameterException")
            and any(text in message for text in _WRAPPED)
        )
    )
    return code if passes else None
