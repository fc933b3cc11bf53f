"""The evidence, proven: checkpoints that sign it, verification, and export with the proof."""
