"""Alerts: what is wrong with a run, told once per cause to whom the settings name."""
