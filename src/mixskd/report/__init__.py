"""What is shown of methods, backbones and runs."""
