"""What IAM's policies allow a role, as IAM itself simulates it.

The simulation does not know all policies of an organisation, nor those of resources: what it allows
may still be refused (IAM user guide, "Testing IAM policies with the IAM policy simulator").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import boto3

from account.once import Operation
from account.session import PATIENT, client_of

Context = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether a role may do it. `missing` are condition keys of policies, of which nobody knows.

    `refused_by` says whose word it is, if it is not that of the role's own policies.
    """

    is_allowed: bool
    missing: tuple[str, ...] = ()
    refused_by: str = ""


class Simulation:
    """Answers to questions, each asked once."""

    def __init__(self, session: boto3.Session) -> None:
        """Raises BadInput."""
        self._iam = client_of(session, "iam", config=PATIENT)
        self._region = str(session.region_name)
        self._known: dict[tuple[object, ...], Answer] = {}
        self._test = Operation()

    def of(self, role_arn: str, action: str, resource: str, context: Context) -> Answer:
        """May the role do it? Raises botocore's exceptions where the user is not allowed to ask."""
        context = {"aws:RequestedRegion": self._region, **context}
        entries: list[Any] = [
            {
                "ContextKeyName": key,
                "ContextKeyValues": [value] if isinstance(value, str) else list(value),
                "ContextKeyType": "string" if isinstance(value, str) else "stringList",
            }
            for key, value in context.items()
        ]
        question = (role_arn, action, resource, str(entries))
        if question not in self._known:
            answer = self._test.ask(
                lambda: self._iam.simulate_principal_policy(
                    PolicySourceArn=role_arn,
                    ActionNames=[action],
                    ResourceArns=[resource],
                    ContextEntries=entries,
                )
            )
            # Of one action and one resource, there is one result.
            (result,) = answer["EvaluationResults"]
            self._known[question] = _read(result)
        return self._known[question]


def _read(result: Mapping[str, Any]) -> Answer:
    if result["EvalDecision"] == "allowed":
        return Answer(is_allowed=True)
    # Where resources are named, it may be there for each of them only (EvaluationResult).
    parts = [result, *result.get("ResourceSpecificResults", [])]
    missing = {key for part in parts for key in part.get("MissingContextValues", [])}
    organisation = result.get("OrganizationsDecisionDetail", {})
    if organisation.get("AllowedByOrganizations") is False:
        return Answer(False, tuple(sorted(missing)), "a policy of the organisation")
    boundaries = [part.get("PermissionsBoundaryDecisionDetail", {}) for part in parts]
    if any(b.get("AllowedByPermissionsBoundary") is False for b in boundaries):
        return Answer(False, tuple(sorted(missing)), "its permissions boundary")
    return Answer(False, tuple(sorted(missing)))
