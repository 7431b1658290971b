"""Reports of finished runs: tables, figures and an HTML page, with the values of the paper beside them."""
