"""What any program of this package stands on: devices, precision, processes, files and digests."""
