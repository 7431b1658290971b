"""Devices, precision, processes, files and digests."""
