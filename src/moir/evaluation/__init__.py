"""Scores: published protocols, benchmarks, baselines, reports."""
