"""The demo's villain: a deployment that replaces a good student's weights under its own name.

It goes straight to the server's hot-loading API, past the parity probe that `understudy serve`
would have run, as a hurried person with curl might.
"""

import shutil
from pathlib import Path

import httpx

from deploy.demo.stage import Stage
from understudy.errors import ServingError


def swap_for_broken(stage: Stage, student: str, folder: Path) -> None:
    """Serve the adapter with every update turned round, under the same name."""
    broken = stage.folder / "broken" / student
    shutil.copytree(folder, broken)
    _negate(broken / "adapter_model.safetensors")
    body = {"lora_name": student, "lora_path": str(broken), "load_inplace": True}
    answer = httpx.post(stage.url("serve") + "/v1/load_lora_adapter", json=body, timeout=60)
    if answer.status_code != 200:
        raise ServingError(f"the server refused the swap: {answer.status_code} {answer.text[:200]}")


def _negate(weights: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(weights)
    turned = {key: -value if "lora_B" in key else value for key, value in tensors.items()}
    save_file(turned, weights, metadata={"format": "pt"})
