"""One file per export format; each is imported only when it is needed."""
