"""The agent at work: look, plan, act, report, wait."""
