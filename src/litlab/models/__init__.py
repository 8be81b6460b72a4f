"""Networks: plain `nn.Module`s from images to logits, which know nothing of training, runs or data."""
