"""Whatever the user's shell and ~/.aws hold, the rehearsal behaves the same and stays here."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING
from unittest import mock

if TYPE_CHECKING:
    from botocore.loaders import Loader

# Read by botocore, moto and Powertools.
PREFIXES = ("AWS_", "BOTO", "MOTO_", "TEST_SERVER_MODE", "TEST_PROXY_MODE", "POWERTOOLS_")
NAMES = ("INITIAL_NO_AUTH_ACTION_COUNT", "LOG_LEVEL")

NO_ACCOUNT = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


def isolate() -> None:
    """Take everything of AWS out of this process's environment.

    To be called before boto3 is imported: moto asks for a session when it is imported, and that
    reads the user's profile and config file.
    """
    _strip()
    import botocore.session  # here, because `--help` needs none of it
    from botocore.loaders import Loader

    # Models in ~/.aws/models would win over botocore's own.
    Loader.CUSTOMER_DATA_PATH = os.devnull
    # Each session would read AWS's models again, which takes longer than most tests.
    botocore.session.create_loader = _one_loader


@contextmanager
def isolated() -> Iterator[None]:
    """The same for a while, where the user's own session is to be used as well."""
    with mock.patch.dict(os.environ):
        _strip()
        from botocore.loaders import Loader

        with mock.patch.object(Loader, "CUSTOMER_DATA_PATH", os.devnull):
            yield


def _strip() -> None:
    for name in list(os.environ):
        is_proxy = name.lower().endswith("_proxy")
        if is_proxy or name in NAMES or name.startswith(PREFIXES):
            del os.environ[name]
    os.environ.update(NO_ACCOUNT)


@cache
def _one_loader(path: "str | None") -> "Loader":
    from botocore.loaders import create_loader

    return create_loader(path)
