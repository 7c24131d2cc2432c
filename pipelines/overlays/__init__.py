"""Overlay videos and contact sheets for visual inspection."""
