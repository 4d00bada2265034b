"""Measures the product beside its alternatives, on farms of its own.

``dispatch``: bookings through retally beside the inline path and the bare statements.
``admission``: what it costs a dispatcher to keep to caps, and whether it does.
``recompute``: what rebuilding all totals costs, beside the other ways to do it.
"""
