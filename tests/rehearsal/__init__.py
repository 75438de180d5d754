"""AWS on your desk, in virtual time: rule, Lambda, CloudTrail and scarce ECS around the handler."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
EVENTS = ROOT / "events"
