"""The trial process: loads one version with TensorFlow under limits, and reports the result.

Runs as `python -m servesync.verify.child`; only `verify.trial` starts it. It keeps accidents and ordinary
malice in bounds: no network where the kernel allows that, no credentials in its environment, no file to
write, bounded time and memory. It is no sandbox for a hostile program: it reads what the agent's user reads.
"""
