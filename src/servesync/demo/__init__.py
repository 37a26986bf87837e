"""The whole journey on one machine: a real S3 server, real models, a model server, and the agent."""
