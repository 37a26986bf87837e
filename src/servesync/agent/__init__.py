"""The agent at work: take in results, look, plan, act, and say so."""
