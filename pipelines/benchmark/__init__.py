"""Measures this machine and the stages of labelling on it, and says what limits them."""
