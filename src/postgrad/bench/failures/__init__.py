"""Failures that are made to happen, what they leave, and how often the classifier names their true cause."""
