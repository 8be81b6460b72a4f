"""Lightning callbacks for what Lightning lacks; they work with any LightningModule and any logger."""
