"""Acceptance tests: the command as a user runs it, from an archive to the rows of SQL."""
