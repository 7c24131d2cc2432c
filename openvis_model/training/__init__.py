"""Losses, objectives and starting points: what training needs beside the method."""
