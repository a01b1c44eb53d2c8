"""Callbacks that do something from one epoch to another."""
