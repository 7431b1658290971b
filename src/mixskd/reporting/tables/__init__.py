"""Tables of finished runs as Markdown, CSV and LaTeX."""
