"""Processes of a run: started, stopped and watched."""
