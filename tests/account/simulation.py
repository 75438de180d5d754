"""What IAM's policies allow a role, as IAM itself simulates it.

The simulation knows no conditions of service control policies, and no resource policies: what it
allows may still be refused (IAM user guide, "Testing IAM policies with the IAM policy simulator").
"""

from collections.abc import Mapping

import boto3

from account.session import client_of


class Simulation:
    """Answers to questions, each asked once."""

    def __init__(self, session: boto3.Session) -> None:
        """Raises BadInput."""
        self._iam = client_of(session, "iam")
        self._known: dict[tuple[object, ...], bool] = {}

    def allows(self, role_arn: str, action: str, resource: str, context: Mapping[str, str]) -> bool:
        """May the role do it? Raises botocore's ClientError where the user may not ask."""
        question = (role_arn, action, resource, *sorted(context.items()))
        if question not in self._known:
            answer = self._iam.simulate_principal_policy(
                PolicySourceArn=role_arn,
                ActionNames=[action],
                ResourceArns=[resource],
                ContextEntries=[
                    {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
                    for key, value in context.items()
                ],
            )
            # Of one action and one resource, there is one result.
            decisions = {result["EvalDecision"] for result in answer["EvaluationResults"]}
            self._known[question] = decisions == {"allowed"}
        return self._known[question]
