"""Many runs under one protocol: a grid, the processes or jobs that carry it out, and its table."""
