"""Pairs of frames from videos: lists of videos, their index, decoding, extraction, batches."""
