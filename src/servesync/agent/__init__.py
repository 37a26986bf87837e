"""The agent at work: take in results, take a snapshot, plan, act, and announce what changed."""
