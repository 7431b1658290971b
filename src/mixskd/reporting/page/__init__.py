"""The HTML report: one self-contained file, built section by section."""
