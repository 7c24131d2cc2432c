"""Scores, submissions, sweeps and their reports."""
