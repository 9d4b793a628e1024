"""Validation of arguments, arrays and batches."""
