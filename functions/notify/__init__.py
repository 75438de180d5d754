"""Alerts people of jobs that did not start: one message for all that were lost within a minute."""
