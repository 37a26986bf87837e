"""Brings one version into staging: fetched, unpacked, proven and synced; it decides nothing."""
