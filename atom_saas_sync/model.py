"""Frozen values that the rooms hand to each other."""

from __future__ import annotations
