"""`understudy console`: the web page, read-only, for the people who run the loop.

It shows users' texts to whoever reaches it, so it listens on loopback unless `--allow-open` says
otherwise. Its first line on stdout is `listening on http://host:port`.
"""

import argparse
import ipaddress
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `understudy console`."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8090, help="port, 0 for a free one")
    parser.add_argument("--lake", type=Path, help="the lake's folder (default: the config's)")
    parser.add_argument(
        "--allow-open",
        action="store_true",
        help="listen beyond loopback: whoever reaches the port reads the logged texts",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM."""
    from deploy.console.app import LOOPBACK, make_app
    from deploy.http_server import run as serve
    from understudy import config
    from understudy.errors import ConfigError
    from understudy.lake import Lake

    if not _is_loopback(args.host) and not args.allow_open:
        raise ConfigError(
            f"--host {args.host} is reachable by others, and the console has no login: put it "
            f"behind one and add --allow-open, or use 127.0.0.1"
        )
    folder, settings = args.lake, args.config
    if folder is None:
        folder = config.load(args.config).lake
    elif not settings.exists() or config.load(settings).lake.resolve() != folder.resolve():
        settings = None  # a file of another lake would explain nothing here
    hosts = None if args.allow_open else LOOPBACK | {args.host}
    serve(make_app(Lake(folder), settings, hosts), args.host, args.port)
    return 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
