"""The in-process engine: loads the model, serves it from a thread of this process."""

import logging
import threading
import time

import uvicorn

from deploy.http_server import address, bind, server
from deploy.serving.engine import Plan
from deploy.serving.inprocess.app import make_app
from deploy.serving.inprocess.model import Model
from deploy.serving.inprocess.students import Students
from understudy.errors import ServingError

log = logging.getLogger(__name__)


class InProcessEngine:
    """A uvicorn server over one model; signals are the command's business."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._socket = bind(plan.host, plan.port)
        self.url = address(self._socket)
        self.dtype = "float32"
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Load the base, then listen."""
        began = time.monotonic()
        model = Model(self._plan.base, self._plan.threads)
        self.dtype = model.dtype
        students = Students(self._plan.base_name, model, self._plan.template_kwargs)
        app = make_app(students)
        self._server = server(app)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="student-http"
        )
        self._thread.start()
        while not self._server.started:
            self.check()
            time.sleep(0.02)
        log.info(
            "%s is ready after %.1f s at %s",
            self._plan.base_name,
            time.monotonic() - began,
            self.url,
        )

    def check(self) -> None:
        """ServingError if the server's thread has ended."""
        if self._thread is not None and not self._thread.is_alive():
            raise ServingError(f"the student server at {self.url} has ended; see the log above")

    def stop(self) -> None:
        """Finish open requests and end."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(timeout=30)
        self._socket.close()
