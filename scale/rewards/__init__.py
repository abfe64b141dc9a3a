"""Verifiable rewards: answers read out of responses, and checked by Math-Verify."""
