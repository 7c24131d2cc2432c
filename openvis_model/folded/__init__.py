"""The networks as they run at inference: the numbers of the trained modules from fewer operations.

They are plain torch, built from a checkpoint's tensors. With a ResNet as backbone, a process that labels videos imports
neither transformers nor open_clip nor peft, which take seconds; other backbones are those of transformers.
"""
