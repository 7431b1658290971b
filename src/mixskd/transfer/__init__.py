"""Detection and segmentation on a backbone that was trained to classify: their data, networks and scores."""
