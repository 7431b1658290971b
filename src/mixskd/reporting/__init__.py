"""Reads finished runs and shows them: tables, figures, the HTML page, and the values of the paper beside them."""
