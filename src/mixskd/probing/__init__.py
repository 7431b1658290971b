"""What frozen features give without training: simple classifiers on what a backbone's last layer takes."""
