"""Search with Optuna, which proposes jobs and prunes those that are hopeless."""
