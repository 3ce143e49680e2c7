"""Hardening a trained net: which parts are vulnerable, and copies, guards and correction for those."""
