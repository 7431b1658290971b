"""Object detection: boxes in images, on a backbone that was trained to classify."""
