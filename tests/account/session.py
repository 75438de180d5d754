"""The user's profile, Region and credentials, and what AWS says against them in one line each."""

import logging
import os
from typing import Any
from weakref import WeakKeyDictionary

import boto3
from botocore import exceptions
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.model import OperationModel
from botocore.parsers import ResponseParserError

from rehearsal.records import BadInput
from retry_run_task.recover import DENIED

# What services call a request that IAM does not allow; the last one is SNS's.
DENIALS = (*DENIED, "AuthorizationError")

# Where IAM's name of an action is not service and operation (Service Authorization Reference).
SERVICES = {"monitoring": "cloudwatch"}
ACTIONS = {
    "lambda:GetLayerVersionByArn": "lambda:GetLayerVersion",
    "lambda:Invoke": "lambda:InvokeFunction",
}

# Reads of an account with many rules are throttled: the SDK waits, for up to 20 s each time.
TRIES = 10
PATIENT = Config(retries={"mode": "standard", "total_max_attempts": TRIES})

# What must not be done twice: the SDK's second try would be another call.
ONE_TRY = Config(retries={"mode": "standard", "total_max_attempts": 1})

# To make a client takes as long as many a request.
_CLIENTS: "WeakKeyDictionary[boto3.Session, dict[tuple[object, ...], Any]]" = WeakKeyDictionary()

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
ERRORS = (
    BotoCoreError,
    ClientError,
    ResponseParserError,
    ValueError,
    OSError,
    EOFError,
    LookupError,
    AttributeError,
)


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
    (exceptions.EndpointConnectionError, exceptions.InvalidRegionError): (
        "{error}: is the Region right, and are you online?"
    ),
    (exceptions.HTTPClientError, exceptions.ConnectionError): "no answer of AWS ({error})",
    (
        exceptions.SSOError,
        exceptions.TokenRetrievalError,
        exceptions.CredentialRetrievalError,
        OSError,
    ): f"your credentials cannot be loaded ({{error}}): {LOG_IN}",
    (exceptions.MissingDependencyException,): (
        "your profile needs another package: put --with 'botocore[crt]' behind `uv run`"
    ),
    (EOFError,): "your profile asks for a code, and there is no terminal to enter it",
}


def open_session(profile: str | None, region: str | None) -> boto3.Session:
    """A session of the user's, with credentials that are good for now; raises BadInput."""
    # What is wrong with a profile is said here, in a line.
    logging.getLogger("botocore").addHandler(logging.NullHandler())
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
    """A client in this Region, or the session's: the same one each time; raises BadInput."""
    known = _CLIENTS.setdefault(session, {})
    if (service, region, config) not in known:
        make: Any = session.client  # it has a signature for each service
        try:
            client = make(service, region_name=region, config=config)
        except ERRORS as error:
            raise BadInput(problem_of(error)) from error
        client.meta.events.register("after-call", _name_the_action)
        known[service, region, config] = client
    return known[service, region, config]


def account_of(session: boto3.Session) -> str:
    """The account of the session's credentials, twelve digits; raises BadInput."""
    try:
        account: str = client_of(session, "sts").get_caller_identity()["Account"]
    except ERRORS as error:
        raise BadInput(problem_of(error)) from error
    return account


def action_of(model: OperationModel) -> str:
    """The action that a policy has to allow for this operation, such as `events:ListRules`."""
    service = str(model.service_model.signing_name)
    action = f"{SERVICES.get(service, service)}:{model.name}"
    return ACTIONS.get(action, action)


def code_of(error: Exception) -> str:
    """The code of an error that AWS answered with; empty for any other."""
    return error.response["Error"].get("Code", "") if isinstance(error, ClientError) else ""


def is_denial(error: Exception) -> bool:
    """Does IAM not allow the call?"""
    return code_of(error) in DENIALS


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


def denial_of(error: ClientError) -> str:
    """What IAM does not allow, by the name of the action."""
    details: dict[str, Any] = {**error.response["Error"]}
    return f"you are not allowed to call {details.get('Action', error.operation_name)}"


def _name_the_action(parsed: Any, model: OperationModel, **_: object) -> None:
    """In an error, what a policy has to allow: AWS's own message does not always say so."""
    if "Error" in parsed:
        parsed["Error"]["Action"] = action_of(model)


def _refusal(error: ClientError) -> str:
    code = error.response["Error"].get("Code", "")
    message = error.response["Error"].get("Message", "")
    operation = error.operation_name
    if code in EXPIRED:
        return f"your credentials have expired: {LOG_IN}"
    if code in INVALID:
        return f"AWS rejects your credentials ({code}): {LOG_IN}"
    if is_denial(error):
        return f"{denial_of(error)}: {message or code}"
    return f"{operation}: {code}: {message}"
