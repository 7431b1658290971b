"""Figures and image grids, drawn by matplotlib without a screen."""
