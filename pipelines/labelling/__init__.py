"""From videos to tables of tracks, on Ray Data."""
