"""How a run is carried out: the step, the loop round it, and what they leave behind."""
