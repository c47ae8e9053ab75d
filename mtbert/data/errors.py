"""What is wrong with data, said once and clearly."""

from __future__ import annotations


class DataError(ValueError):
    """Data that cannot be used: names the file, line and field, what was expected, and the way out."""
