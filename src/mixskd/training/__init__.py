"""How a run is trained: the step, the loop around it, and the files that they write."""
