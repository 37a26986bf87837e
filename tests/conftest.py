"""Fixtures that every test may use."""

pytest_plugins = ["fixtures_models", "fixtures_store", "fixtures_publish"]
