"""One file a format in which a classifier leaves; none is imported before it is asked for."""
