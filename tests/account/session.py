"""The user's profile, Region and credentials, and what AWS says against them in one line each."""

import os
from typing import Any

import boto3
from botocore import exceptions
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from rehearsal.records import BadInput

LOG_IN = "log in again (`aws sso login`, or however you get credentials)"

# What AWS and botocore call credentials that are no good any more (IAM, "Common error types", and
# what STS and SSO add).
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired")
INVALID = (
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "AuthFailure",
)
DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")


# Whatever botocore raises of a profile, of the environment, or of what AWS answers. It leaves some
# of what it reads to others: an address that is none, a process that prints no JSON.
ERRORS = (BotoCoreError, ClientError, ValueError)


def open_session(profile: str | None, region: str | None) -> boto3.Session:
    """A session of the user's, with credentials; raises BadInput."""
    # The AWS CLI reads AWS_REGION first; botocore reads AWS_DEFAULT_REGION alone.
    region = region or os.environ.get("AWS_REGION")
    try:
        session = boto3.Session(profile_name=profile, region_name=region)
        has_credentials = session.get_credentials() is not None
    except ERRORS as error:
        raise BadInput(problem_of(error)) from error
    if not has_credentials:
        raise BadInput(problem_of(exceptions.NoCredentialsError()))
    return session


def client_of(
    session: boto3.Session, service: str, region: str | None = None, config: Config | None = None
) -> Any:
    """A client in this Region, or the session's; raises BadInput."""
    make: Any = session.client  # it has a signature for each service
    try:
        return make(service, region_name=region, config=config)
    except ERRORS as error:
        raise BadInput(problem_of(error)) from error


def problem_of(error: Exception) -> str:
    """What is wrong, and the way out."""
    match error:
        case ClientError():
            return _refusal(error)
        case exceptions.NoRegionError():
            return "no Region: give --region, or set one in your profile or AWS_REGION"
        case exceptions.NoCredentialsError() | exceptions.PartialCredentialsError():
            return f"no credentials: give --profile, or {LOG_IN}"
        case exceptions.ProfileNotFound():
            return f"{error}: `aws configure list-profiles` names those that you have"
        case (
            exceptions.SSOError()
            | exceptions.TokenRetrievalError()
            | exceptions.CredentialRetrievalError()
        ):
            return f"your credentials cannot be had ({error}): {LOG_IN}"
        case exceptions.EndpointConnectionError() | exceptions.InvalidRegionError():
            return f"{error}: is the Region right, and are you online?"
    return str(error) or type(error).__name__


def _refusal(error: ClientError) -> str:
    code = error.response["Error"].get("Code", "")
    message = error.response["Error"].get("Message", "")
    operation = error.operation_name
    if code in EXPIRED:
        return f"your credentials have expired: {LOG_IN}"
    if code in INVALID:
        return f"AWS does not take your credentials ({code}): {LOG_IN}"
    if code in DENIED:
        return f"you are not allowed to call {operation}: {message or code}"
    return f"{operation}: {code}: {message}"
