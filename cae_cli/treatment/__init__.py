"""Tests fixes against random changes."""
