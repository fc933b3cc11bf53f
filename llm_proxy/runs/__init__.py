"""Runs that agents open under an envelope: what they may use, who is above them, and when they are over."""
