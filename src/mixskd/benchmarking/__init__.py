"""What training costs on this machine: each optimisation on and off, side by side."""
