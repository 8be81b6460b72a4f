"""A study whose jobs are not known beforehand: Optuna proposes them, and says which are hopeless."""
