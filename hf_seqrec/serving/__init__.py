"""Serving: sessions of many users, the file that keeps them, and the thread that answers requests together."""
