"""The function's resource policy: may a rule of EventBridge invoke it?"""

from typing import Any

from rehearsal.callers import RULES_SERVICE
from rehearsal.iam import allowed, as_list
from rehearsal.records import BadInput


def may_invoke(statements: list[dict[str, Any]], function_arn: str, rule_arn: str) -> bool:
    """Does a function's resource policy let this rule invoke it?

    Raises BadInput for a policy that this command does not understand.
    """
    for_events = [
        # IAM does not mind the case of a condition's keys: Lambda writes AWS:SourceArn.
        statement
        | {
            "Condition": {
                operator: {key.lower(): value for key, value in keys.items()}
                for operator, keys in statement.get("Condition", {}).items()
            }
        }
        for statement in statements
        if _is_for_events(statement.get("Principal"))
    ]
    context = {"aws:sourcearn": rule_arn, "aws:sourceaccount": rule_arn.split(":")[4]}
    try:
        return allowed(for_events, "lambda:InvokeFunction", function_arn, context)
    except KeyError as operator:
        raise BadInput(f"it has a condition that is not understood ({operator})") from operator


def _is_for_events(principal: Any) -> bool:
    if isinstance(principal, dict):
        return RULES_SERVICE in as_list(principal.get("Service", []))
    return bool(principal == "*")
