"""The command line: one file per group of verbs; heavy imports inside each verb."""

from hepamap.cli.app import app, main

__all__ = ["app", "main"]
