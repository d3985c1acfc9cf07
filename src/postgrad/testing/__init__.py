"""Contract suites, one a plug-in folder. They ship with the package, so that an outside plug-in can prove itself.

They need pytest. For readable failures, put `pytest.register_assert_rewrite("postgrad.testing")` into `conftest.py`
before anything of this package is imported.
"""
