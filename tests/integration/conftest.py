"""Integration tests: a few real parts together, mostly a database or a queue without workers."""
