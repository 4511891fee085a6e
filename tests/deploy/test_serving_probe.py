"""What may not be served is refused before it can take a request, with the reason; nothing stays.

Here on the in-process server; `test_serving_contract.py` asks the essential ones of vLLM too.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from deploy.serving.client import StudentServer
from deploy.serving.roster import Roster, registered
from tests.deploy.command import Command
from tests.deploy.conftest import Tiny
from understudy import documents
from understudy.base_model import base_hash
from understudy.errors import LakeError, ServingError
from understudy.lake import Lake

ADAPTER = "adapter_model.safetensors"
Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def url(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("serve") / "log"
    arguments = ("--engine", "transformers", "--threads", 1, "--port", 0, "--base", tiny.base)
    with Command("serve", *arguments, log=log) as command:
        yield command.started().url


@pytest.fixture
def server(url: str) -> Iterator[StudentServer]:
    server = StudentServer(url)
    yield server
    server.close()


@pytest.fixture
def roster(server: StudentServer, tiny: Tiny) -> Iterator[Roster]:
    roster = Roster(server, tiny.base, base_hash(tiny.base), dtype="float32", max_rank=8)
    yield roster
    for name in list(roster.served):
        roster.dismiss(name)


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.students["colour-0001"], tmp_path / "student"))


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def edit_tensors(folder: Path, change: Callable[[str, Any], Any]) -> None:
    tensors = load_file(folder / ADAPTER)
    save_file({name: change(name, value) for name, value in tensors.items()}, folder / ADAPTER)


def emptied(folder: Path) -> None:
    edit_tensors(folder, lambda n, t: np.zeros_like(t) if "lora_B" in n else t)


def without_effect(folder: Path) -> None:
    emptied(folder)
    edit_json(
        folder / "probe.json",
        lambda probe: [item.update(logprobs=item["base_logprobs"]) for item in probe["items"]],
    )


def slightly_other(folder: Path) -> None:
    edit_tensors(folder, lambda n, t: t * np.float32(0.6) if "lora_B" in n else t)


def narrower(folder: Path) -> None:
    edit_tensors(folder, lambda n, t: t[:, :-1].copy() if n.endswith("lora_A.weight") else t)


def of_other_layers(folder: Path) -> None:
    tensors = load_file(folder / ADAPTER)
    save_file(
        {n.replace("layers.1.", "layers.7."): t for n, t in tensors.items()}, folder / ADAPTER
    )


def of_other_weights(folder: Path) -> None:
    edit_json(folder / "student.json", lambda card: card.update(base_hash="0" * 64))


def dora(folder: Path) -> None:
    edit_json(folder / "adapter_config.json", lambda config: config.update(use_dora=True))


def high_rank(folder: Path) -> None:
    edit_json(folder / "adapter_config.json", lambda config: config.update(r=64))


def torn(folder: Path) -> None:
    whole = (folder / ADAPTER).read_bytes()
    (folder / ADAPTER).write_bytes(whole[:100])


def unprobed(folder: Path) -> None:
    (folder / "probe.json").unlink()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (emptied, "the base answers in its place"),
        (without_effect, "its adapter changes nothing"),
        (slightly_other, "differ from the trained ones"),
        (narrower, "does not fit .* the adapter is for 64x127"),
        (of_other_layers, r"the base has no model\.layers\.7"),
        (of_other_weights, "was trained on other weights"),
        (dora, "use_dora of adapter_config"),
        (high_rank, "has rank 64, the server was started for 8"),
        (torn, "is no safetensors file"),
        (unprobed, r"cannot read .*probe\.json"),
    ],
)
def test_an_unfit_student_is_refused(
    roster: Roster, server: StudentServer, folder: Path, change: Change, words: str
) -> None:
    change(folder)
    before = server.models()
    with pytest.raises(ServingError, match=words):
        roster.admit("colour-0003", folder)
    assert server.models() == before
    assert roster.served == {}


def test_a_student_that_does_not_stop_is_refused(
    roster: Roster, tiny: Tiny, tmp_path: Path
) -> None:
    from tests.deploy.tiny_student import make_student

    folder = make_student(tmp_path / "endless", tiny.base, "colour-0004", ends=False)
    with pytest.raises(ServingError, match="stopped by itself in 0 of 4"):
        roster.admit("colour-0004", folder)


def test_a_sound_student_is_served_under_its_own_name_alone(
    roster: Roster, server: StudentServer, tiny: Tiny
) -> None:
    probed = roster.admit("colour-0001", tiny.students["colour-0001"])
    assert server.models() == [str(tiny.base), "colour-0001"]
    assert probed.to_trainer < 0.001 < 1 < probed.to_base


def test_the_roster_follows_the_lake_and_a_refusal_stops_nobody(
    roster: Roster,
    tiny: Tiny,
    folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    emptied(folder)
    lake = Lake(tmp_path / "lake")
    folders = {n: str(f) for n, f in tiny.students.items()} | {"broken-0001": str(folder)}
    documents.write_aliases(
        lake,
        "colour",
        documents.Aliases(candidate="broken-0001", champion="colour-0001", students=folders),
    )
    roster.follow(registered(lake, "colour"))
    assert set(roster.served) == {"colour-0001"}
    assert caplog.text.count("'broken-0001' is refused") == 1
    documents.write_aliases(
        lake,
        "colour",
        documents.Aliases(candidate="broken-0001", champion="colour-0002", students=folders),
    )
    roster.follow(registered(lake, "colour"))
    assert set(roster.served) == {"colour-0002"}
    assert caplog.text.count("'broken-0001' is refused") == 1


def test_an_alias_without_a_folder_is_an_error(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    documents.write_aliases(lake, "colour", documents.Aliases(champion="colour-0009"))
    with pytest.raises(LakeError, match="colour-0009"):
        registered(lake, "colour")
