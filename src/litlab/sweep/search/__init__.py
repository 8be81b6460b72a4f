"""Search with Optuna, which proposes jobs and prunes unpromising ones."""
