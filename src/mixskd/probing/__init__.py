"""Simple classifiers on the frozen features of a backbone: the inputs of its last layer."""
