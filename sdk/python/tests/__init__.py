"""Tests of registry_sdk: `python3 -m unittest` in sdk/python."""

import logging

logging.getLogger("registry_sdk").addHandler(logging.NullHandler())  # what tests expect is not printed
