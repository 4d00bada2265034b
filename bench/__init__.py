"""Measures the product beside its alternatives, on a farm of its own.

``dispatch``: bookings through retally beside the inline path and the bare statements.
"""
