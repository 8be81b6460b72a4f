"""From runs on the disk to what they say: one table, figures, a page, TensorBoard summaries. No torch."""
