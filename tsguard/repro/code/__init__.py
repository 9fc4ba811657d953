"""Python code for what a Case holds. What cannot be written says why."""
