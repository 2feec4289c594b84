"""Tiny networks, families and recipes for the tests of `training`, and a driver for runs in two processes."""
