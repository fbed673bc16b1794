"""Restoration over HTTP: a REST server and a web page on one port."""

from moir.serve.run import create_app, serve
from moir.serve.settings import Settings

__all__ = ["Settings", "create_app", "serve"]
