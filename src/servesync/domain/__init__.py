"""The values that travel between the steps, and the documents that travel through the store."""
