"""The user's profile, Region and credentials, and what AWS says against them in one line each."""

import os
from typing import Any

import boto3
from botocore import exceptions
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from rehearsal.records import BadInput
from retry_run_task.recover import DENIED

LOG_IN = "log in again (`aws sso login`, or however you get credentials)"

# What the services called here say of credentials that are no good (any more): the "Common error
# types" of their API references, in the names of JSON services and of STS. (That these are all is a
# guess: any other error is shown as it is.)
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired")
INVALID = (
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
)

# What botocore raises because of a profile, the environment, or an answer. It does not check all:
# an address that is none, a program that is missing or prints something else, a code that cannot be
# asked for without a terminal, an answer that is not AWS's.
ERRORS = (BotoCoreError, ClientError, ValueError, OSError, EOFError, LookupError, AttributeError)


PROBLEMS: dict[tuple[type[Exception], ...], str] = {
    (exceptions.NoRegionError,): (
        "no Region: give --region, or set one in your profile or AWS_REGION"
    ),
    (exceptions.NoCredentialsError, exceptions.PartialCredentialsError): (
        f"no credentials: give --profile, or {LOG_IN}"
    ),
    (exceptions.ProfileNotFound,): (
        "{error}: `aws configure list-profiles` names those that you have"
    ),
    (
        exceptions.SSOError,
        exceptions.TokenRetrievalError,
        exceptions.CredentialRetrievalError,
        OSError,
    ): f"your credentials cannot be loaded ({{error}}): {LOG_IN}",
    (exceptions.EndpointConnectionError, exceptions.InvalidRegionError): (
        "{error}: is the Region right, and are you online?"
    ),
    (exceptions.MissingDependencyException,): (
        "your profile needs another package: uv run --with 'botocore[crt]' history"
    ),
    (EOFError,): "your profile asks for a code, and there is no terminal to enter it",
}


def open_session(profile: str | None, region: str | None) -> boto3.Session:
    """A session of the user's, with credentials that are good for now; raises BadInput."""
    # The AWS CLI reads AWS_REGION first; botocore reads AWS_DEFAULT_REGION alone.
    region = region or os.environ.get("AWS_REGION")
    try:
        session = boto3.Session(profile_name=profile, region_name=region)
        credentials = session.get_credentials()
        if credentials is None:
            raise exceptions.NoCredentialsError
        credentials.get_frozen_credentials()  # now, for it may ask for a code
    except ERRORS as error:
        raise BadInput(problem_of(error)) from error
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
    if isinstance(error, BadInput):
        return str(error)
    if isinstance(error, ClientError):
        return _refusal(error)
    for kinds, text in PROBLEMS.items():
        if isinstance(error, kinds):
            return text.format(error=str(error).rstrip("."))
    if isinstance(error, BotoCoreError):
        return str(error)
    what = f"{type(error).__name__}: {error}"
    return f"your profile, the environment (AWS_...) or AWS's answer cannot be used ({what})"


def _refusal(error: ClientError) -> str:
    code = error.response["Error"].get("Code", "")
    message = error.response["Error"].get("Message", "")
    operation = error.operation_name
    if code in EXPIRED:
        return f"your credentials have expired: {LOG_IN}"
    if code in INVALID:
        return f"AWS rejects your credentials ({code}): {LOG_IN}"
    if code in DENIED:
        return f"you are not allowed to call {operation}: {message or code}"
    return f"{operation}: {code}: {message}"
