"""Command line of litlab: one module for each command."""
