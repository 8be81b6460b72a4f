"""Networks: plain `nn.Module`s from images to logits, independent of training, runs and data."""
