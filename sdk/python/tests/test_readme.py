"""The programs of README.md: all are Python, and the first one runs."""

import ast
import contextlib
import io
import re
import unittest
from pathlib import Path

from .test_client import Case

README = (Path(__file__).parents[1] / "README.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


class Readme(Case):
    def test_all_are_python(self) -> None:
        self.assertGreater(len(PROGRAMS), 6)
        for program in PROGRAMS:
            compile(program, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    def test_the_first_one(self) -> None:
        program = PROGRAMS[0].replace("127.0.0.1:9800,127.0.0.1:9801", self.cluster.target).replace('"dev"', '"test"')
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(program, "README.md", "exec"), {})
        self.assertEqual(printed.getvalue(), "web-1 10.0.0.1:8080\n")
        self.assertEqual(self.cluster.state.groups["web"]["members"], {})


if __name__ == "__main__":
    unittest.main()
