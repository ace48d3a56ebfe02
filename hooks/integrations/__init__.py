"""Adapters for those who prefer a callback: each is loaded only by who uses its framework."""
