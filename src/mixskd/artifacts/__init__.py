"""What a run leaves: the model file, its summary and the results of the suites, examined when they are read."""
