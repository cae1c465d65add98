"""Logs and feature tables in, dense rows and a linted split out; nothing here that reads data imports torch."""
