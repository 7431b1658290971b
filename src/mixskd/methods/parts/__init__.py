"""What methods are built from: branches, self-teachers, discriminators, mixes and pure losses."""
