"""The YAML file beside the lake: where the rollout's steps and the limits come from.

The console works without one. A file that turned bad is a sentence on the page, and the last good
version is shown on.
"""

import threading
from pathlib import Path

from understudy.config import Config
from understudy.config_file import ConfigFile
from understudy.errors import ConfigError


class Settings:
    """The newest good configuration, or none. Thread-safe."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: ConfigFile | None = None
        self._lock = threading.Lock()

    def read(self) -> tuple[Config | None, str | None]:
        """The configuration in force, and what is wrong with the file, if anything is."""
        if self._path is None:
            return None, None
        with self._lock:
            try:
                if self._file is None:
                    self._file = ConfigFile(self._path)
                self._file.poll()
            except ConfigError as error:
                return None, str(error)
            return self._file.config, self._file.complaint or None
