from support.slurm_cluster import cluster, project

__all__ = ["cluster", "project"]  # fixtures
