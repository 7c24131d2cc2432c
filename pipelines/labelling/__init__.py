"""Labelling on Ray Data: from videos to tables of tracks."""
