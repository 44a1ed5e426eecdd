"""Tries a fix beside a random control."""
