"""The configuration file as something that changes while we run: the last good one stays in force.

`poll` is called as often as one likes: it reads the text, and parses it only if it differs. A bad
file is logged once and changes nothing. What a change means is up to the caller.
"""

import logging
from pathlib import Path

from understudy.config import Config, config_hash, load_text, read
from understudy.errors import ConfigError

log = logging.getLogger(__name__)


class ConfigFile:
    """`config` and `hash` of the last good version, `complaint` on a newer bad one; else empty.

    ConfigError if the first version is bad.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._text = read(path)
        self.config: Config = load_text(self._text, path)
        self.hash = config_hash(self._text)
        self.complaint = ""

    def poll(self) -> bool:
        """Whether there is a new good version, which is then in `config`."""
        try:
            text = read(self.path)
            if text == self._text:
                return False
            self._text = text
            self.config = load_text(text, self.path)
        except ConfigError as error:
            if str(error) != self.complaint:
                log.error("%s; the last good version stays in force", error)
                self.complaint = str(error)
            return False
        self.hash, self.complaint = config_hash(text), ""
        log.info("%s changed, %s is in force", self.path, self.hash)
        return True
