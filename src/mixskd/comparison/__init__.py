"""Many runs under one protocol: grids, their runs, the processes or jobs that train them, and their tables."""
