"""litlab side by side with the usual way: `python -m benchmarks`; docs/benchmarks.md says how to read it."""
