"""Checks of arguments, arrays and batches."""
