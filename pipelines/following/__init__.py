"""Follows objects that a person shows in a frame: from a video and prompts to tracks."""
