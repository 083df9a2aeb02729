"""Runs from the command line: configurations, run folders, comparisons and reports. Nothing imports this package."""
