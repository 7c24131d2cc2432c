"""The networks as they run at inference: the numbers of the trained modules from fewer operations.

Everything is plain torch and is built from a checkpoint's tensors, so that a process that labels videos imports neither
transformers nor open_clip nor peft, which take seconds.
"""
