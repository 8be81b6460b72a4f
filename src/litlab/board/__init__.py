"""What runs and studies write for TensorBoard without training: event files, sessions of its HParams page. No torch."""
