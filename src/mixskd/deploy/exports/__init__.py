"""The export formats."""
