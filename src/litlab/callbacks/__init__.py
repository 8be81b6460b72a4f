"""Lightning callbacks: what Lightning lacks. They leave other LightningModules and other loggers alone."""
