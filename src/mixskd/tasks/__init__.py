"""What a label is: a class of an image, boxes in it, or a class of every pixel. One file or folder a kind of label."""
