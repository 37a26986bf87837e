"""The process around the agent: its loop and signals, what wakes it, its settings and their reload."""
