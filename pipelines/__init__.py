"""Rows and Ray: from videos to tables of tracks, and the data sets, training and evaluation around them."""
