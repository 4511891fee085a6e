"""vLLM as a child process: started with LoRA, waited for, watched, and taken down with us.

Its output is kept to quote the last lines when it dies, and goes to the debug log. Adapters are
loaded later over HTTP. vLLM's own sampling defaults are switched off (`--generation-config vllm`),
so that a request without a temperature means 1.0, as in OpenAI's API and our in-process server.
On a CPU the base must not be asked beside students: vLLM 0.32 mixes the adapter of its last slot
into such rows (vllm#48421, open); students are right among each other.
"""

import ctypes
import json
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from pathlib import Path

from deploy.serving.client import StudentServer
from deploy.serving.engine import Plan
from understudy.errors import ServingError

log = logging.getLogger(__name__)

START_TIMEOUT_S = 900
STOP_TIMEOUT_S = 30
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM accepts as --max-lora-rank
_PR_SET_PDEATHSIG = 1


class VllmEngine:
    """One vLLM server."""

    def __init__(self, plan: Plan, python: Path) -> None:
        self._plan, self._python = plan, python
        self._gpu = Path("/dev/nvidia0").exists()
        self.dtype = "bfloat16" if self._gpu else "float32"
        self._port = plan.port or _free_port(plan.host)
        self.url = f"http://{plan.host}:{self._port}"
        self._last: deque[str] = deque(maxlen=25)
        self._child: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start and wait until /health answers."""
        self._child = subprocess.Popen(
            self._command(),
            env=os.environ | self._environment(),
            text=True,
            errors="replace",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent,
        )
        threading.Thread(target=self._read, args=(self._child,), daemon=True).start()
        server, began, said = StudentServer(self.url), time.monotonic(), time.monotonic()
        while not server.healthy():
            self.check()
            now = time.monotonic()
            if now - began > START_TIMEOUT_S:
                self.stop()
                raise ServingError(f"vLLM was not ready in {START_TIMEOUT_S} s; {self._words()}")
            if now - said > 10:
                log.info("vLLM is starting (%.0f s): %s", now - began, self._last_line())
                said = now
            time.sleep(0.5)
        server.close()
        log.info("vLLM is ready after %.0f s at %s", time.monotonic() - began, self.url)

    def check(self) -> None:
        """ServingError with vLLM's last lines if it has exited."""
        if self._child is not None and (status := self._child.poll()) is not None:
            time.sleep(0.2)  # lets the reader thread take the last lines
            raise ServingError(f"vLLM exited with status {status}; {self._words()}")

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after a while."""
        if self._child is None or self._child.poll() is not None:
            return
        self._child.terminate()
        try:
            self._child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            log.warning("vLLM did not stop in %d s; killing it", STOP_TIMEOUT_S)
            self._child.kill()
            self._child.wait()

    def _command(self) -> list[str]:
        plan = self._plan
        rank = next((rank for rank in RANKS if rank >= plan.max_rank), None)
        if rank is None:
            raise ServingError(f"rank {plan.max_rank} is above vLLM's {RANKS[-1]}; train a smaller")
        tools = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
        return [
            str(self._python),
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            str(plan.base),
            "--served-model-name",
            plan.base_name,
            "--host",
            plan.host,
            "--port",
            str(self._port),
            "--enable-lora",
            "--max-lora-rank",
            str(rank),
            "--max-loras",
            "4",
            "--dtype",
            self.dtype,
            "--generation-config",
            "vllm",
            *(tools if _writes_tool_calls(plan.base) else ()),
            *(
                ("--default-chat-template-kwargs", json.dumps(plan.template_kwargs))
                if plan.template_kwargs
                else ()
            ),
            *(() if self._gpu else ("--enforce-eager",)),  # compiling costs more than it gains here
            *plan.vllm_arguments,
        ]

    def _environment(self) -> dict[str, str]:
        fixed = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_NO_USAGE_STATS": "1"}
        on_cpu = {"VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")}  # GiB
        return fixed | ({} if self._gpu else on_cpu)

    def _read(self, child: "subprocess.Popen[str]") -> None:
        assert child.stdout is not None
        for line in child.stdout:
            self._last.append(line.rstrip())
            log.debug("vllm: %s", line.rstrip())

    def _last_line(self) -> str:
        return self._last[-1][-160:] if self._last else "no output yet"

    def _words(self) -> str:
        return "its last lines:\n  " + "\n  ".join(self._last)


def _writes_tool_calls(base: Path) -> bool:
    texts = (base / name for name in ("chat_template.jinja", "tokenizer_config.json"))
    return any("<tool_call>" in path.read_text() for path in texts if path.is_file())


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as sock:
        return int(sock.getsockname()[1])


def _die_with_parent() -> None:
    """In the child: a killed parent takes vLLM with it, so that no orphan keeps the GPU (Linux)."""
    if hasattr(signal, "SIGTERM") and os.uname().sysname == "Linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
