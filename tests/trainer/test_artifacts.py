from __future__ import annotations

import errno
import json
import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from tests.trainer.conftest import CONFIG
from trainer import artifacts
from trainer.artifacts import (
    ArtifactDamaged,
    ArtifactUnreadable,
    load_version,
    manifest_sha256,
    read_user_vectors,
    sweep_partials,
    verify,
    write_artifact,
    write_without,
)
from trainer.cluster_users import ClusterUserModel
from trainer.styled_users import StyledUserModel
from trainer.user_models import IndividualUserModel
from trainer.user_vectors import UserVectors

IDENTITY = "ab" * 32
GENERIC = torch.arange(8.0).reshape(2, 4)
OFFSETS = {3: torch.full((2, 4), 0.5)}


def files() -> dict[str, bytes]:
    return {
        artifacts.TRAIN_CONFIG: json.dumps(CONFIG.to_json()).encode(),
        artifacts.ADAPTER_CONFIG: b"{}",
        artifacts.ADAPTER_WEIGHTS: save({"a.lora_A.weight": torch.ones(2, 2)}),
        artifacts.USER_VECTORS: save(IndividualUserModel(GENERIC, OFFSETS, ()).tensors()),
        artifacts.TRAINER_STATE: save({"generic/step": torch.tensor(3.0)}),
        artifacts.METRICS: b'{"curve": []}',
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("versions") / "v1"
    write_artifact(path, files(), base_identity=IDENTITY)
    return path


def test_a_version_comes_back_as_written(written: Path) -> None:
    version = load_version(written, base_identity=IDENTITY)
    assert version.config == CONFIG
    assert version.lora_scale == CONFIG.lora_alpha / CONFIG.lora_rank
    assert torch.equal(version.adapter["a.lora_A.weight"], torch.ones(2, 2))
    assert torch.equal(version.vectors.generic, GENERIC)
    assert torch.equal(version.vectors.vector(3), GENERIC + 0.5)
    assert {p.name for p in written.iterdir()} == {
        "adapter",
        "manifest.json",
        "metrics.json",
        "train_config.json",
        "trainer_state.safetensors",
        "user_vectors.safetensors",
    }


def test_a_version_is_written_again_without_somebody(tmp_path: Path) -> None:
    content = files() | {
        artifacts.USER_VECTORS: save(
            IndividualUserModel(GENERIC, {**OFFSETS, 30: torch.ones(2, 4)}, ()).tensors()
        ),
        artifacts.TRAINER_STATE: save(
            {f"vectors/{name}/step": torch.tensor(3.0) for name in ("generic", "user.3", "user.30")}
        ),
        artifacts.METRICS: b'{"gate": {"samples": [{"user_id": 3}, {"user_id": null}]}}',
    }
    write_artifact(tmp_path / "old", content, base_identity=IDENTITY)
    digest = write_without(tmp_path / "old", tmp_path / "new", {3, 99})
    assert manifest_sha256(tmp_path / "new") == digest
    version = load_version(tmp_path / "new", base_identity=IDENTITY)
    assert set(version.vectors.personal) == {30}
    assert torch.equal(version.vectors.vector(30), GENERIC + 1)
    state = load((tmp_path / "new" / artifacts.TRAINER_STATE).read_bytes())
    assert set(state) == {"vectors/generic/step", "vectors/user.30/step"}
    metrics = json.loads((tmp_path / "new" / artifacts.METRICS).read_text())
    assert metrics == {"gate": {"samples": [{"user_id": None}]}}
    assert set(read_user_vectors(tmp_path / "old").personal) == {3, 30}


def test_the_cluster_layout_loses_its_row_too(tmp_path: Path) -> None:
    clusters = ClusterUserModel(torch.ones(2, 2, 4), {3: torch.ones(2), 4: torch.zeros(2)}, ())
    content = files() | {artifacts.USER_VECTORS: save(clusters.tensors())}
    write_artifact(tmp_path / "old", content, base_identity=IDENTITY)
    write_without(tmp_path / "old", tmp_path / "new", {3})
    assert set(read_user_vectors(tmp_path / "new").personal) == {4}


def test_the_styled_layout_loses_its_shares_too(tmp_path: Path) -> None:
    shares = {3: torch.tensor([1.2]), 4: torch.tensor([0.25])}
    zeros = {user: torch.zeros_like(GENERIC) for user in shares}
    users = StyledUserModel(GENERIC, torch.ones(1, *GENERIC.shape), shares, zeros, ())
    content = files() | {artifacts.USER_VECTORS: save(users.tensors())}
    write_artifact(tmp_path / "old", content, base_identity=IDENTITY)
    write_without(tmp_path / "old", tmp_path / "new", {3})
    kept = load((tmp_path / "new" / artifacts.USER_VECTORS).read_bytes())
    assert torch.equal(kept["shares"], shares[4][None])
    assert set(read_user_vectors(tmp_path / "new").personal) == {4}


def test_vectors_alone_are_read_from_what_was_written(tmp_path: Path) -> None:
    write_artifact(tmp_path / "v", files(), base_identity=IDENTITY)
    (tmp_path / "v" / artifacts.USER_VECTORS).write_bytes(b"something else")
    with pytest.raises(ArtifactDamaged):
        read_user_vectors(tmp_path / "v")
    partial = {artifacts.TRAIN_CONFIG: b"{}"}
    write_artifact(tmp_path / "w", partial, base_identity=IDENTITY)
    with pytest.raises(ArtifactDamaged, match="no user vectors"):
        read_user_vectors(tmp_path / "w")


def test_an_unknown_user_is_served_the_generic_vector() -> None:
    vectors = UserVectors(GENERIC, {3: GENERIC + 1})
    assert vectors.vector(None) is GENERIC
    assert vectors.vector(99) is GENERIC
    assert torch.equal(vectors.vector(3), GENERIC + 1)


def test_the_manifests_checksum_is_what_write_returned(tmp_path: Path) -> None:
    digest = write_artifact(tmp_path / "v", files(), base_identity=IDENTITY)
    assert manifest_sha256(tmp_path / "v") == digest
    assert set(verify(tmp_path / "v").files) == set(files())


def test_another_base_model_is_refused(written: Path) -> None:
    with pytest.raises(ArtifactDamaged, match="made for base model"):
        load_version(written, base_identity="cd" * 32)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_in_any_file_is_refused(written: Path, data: st.DataObject) -> None:
    names = sorted([*files(), artifacts.MANIFEST])
    path = written / data.draw(st.sampled_from(names))
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[at] ^ (1 << data.draw(st.integers(0, 7)))
    path.write_bytes(whole[:at] + bytes([flipped]) + whole[at + 1 :])
    try:
        with pytest.raises(ArtifactDamaged):
            load_version(written, base_identity=IDENTITY)
    finally:
        path.write_bytes(whole)


def test_any_flipped_bit_of_the_manifest_is_refused(written: Path) -> None:
    path = written / artifacts.MANIFEST
    whole = path.read_bytes()
    accepted = []
    try:
        for at in range(len(whole)):
            for bit in range(8):
                path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :])
                try:
                    load_version(written, base_identity=IDENTITY)
                except ArtifactDamaged:
                    continue
                accepted.append((at, bit))
    finally:
        path.write_bytes(whole)
    assert accepted == []


@pytest.mark.parametrize("name", [*files(), artifacts.MANIFEST])
def test_a_missing_or_cut_file_is_refused(tmp_path: Path, written: Path, name: str) -> None:
    shutil.copytree(written, tmp_path / "v")
    (tmp_path / "v" / name).write_bytes((tmp_path / "v" / name).read_bytes()[:-1])
    with pytest.raises(ArtifactDamaged):
        verify(tmp_path / "v")
    (tmp_path / "v" / name).unlink()
    with pytest.raises(ArtifactDamaged, match="missing"):
        verify(tmp_path / "v")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE, errno.ESTALE])
def test_a_file_that_cannot_be_read_now_is_not_called_damaged(
    written: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(_path: Path) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ArtifactUnreadable, match=os.strerror(number)):
        verify(written)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR])
def test_a_file_that_is_not_there_is_damage(
    written: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(_path: Path) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ArtifactDamaged) as caught:
        verify(written)
    assert not isinstance(caught.value, ArtifactUnreadable)


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactDamaged):
        load_version(tmp_path / "nothing", base_identity=IDENTITY)


def test_a_manifest_that_points_outside_is_refused(tmp_path: Path) -> None:
    write_artifact(tmp_path / "v", {"a": b"1"}, base_identity=IDENTITY)
    manifest = tmp_path / "v" / artifacts.MANIFEST
    (tmp_path / "v" / "a").rename(tmp_path / "a")
    manifest.write_text(manifest.read_text().replace('"a"', '"../a"'))
    with pytest.raises(ArtifactDamaged, match="outside"):
        verify(tmp_path / "v")


def test_whole_but_senseless_content_is_refused(tmp_path: Path) -> None:
    content = {**files(), artifacts.USER_VECTORS: b"not tensors"}
    write_artifact(tmp_path / "v", content, base_identity=IDENTITY)
    with pytest.raises(ArtifactDamaged, match="cannot be read"):
        load_version(tmp_path / "v", base_identity=IDENTITY)


def test_an_existing_target_is_never_overwritten(tmp_path: Path, written: Path) -> None:
    before = manifest_sha256(written)
    with pytest.raises(FileExistsError):
        write_artifact(written, {"x": b"y"}, base_identity=IDENTITY)
    assert manifest_sha256(written) == before


@pytest.mark.parametrize("call", range(8))
def test_a_failure_at_any_fsync_leaves_nothing(tmp_path: Path, monkeypatch, call: int) -> None:
    fsync, calls = os.fsync, []

    def failing(handle: int) -> None:
        calls.append(handle)
        if len(calls) == call + 1:
            raise OSError(28, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="No space"):
        write_artifact(tmp_path / "v", files(), base_identity=IDENTITY)
    assert list(tmp_path.iterdir()) == []


def test_everything_is_synced_before_the_rename_and_the_parent_after(
    tmp_path: Path, monkeypatch
) -> None:
    events: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(handle: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    def noted_rename(self: Path, target: Path) -> Path:
        events.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    write_artifact(tmp_path / "v", files(), base_identity=IDENTITY)
    at = events.index("rename")
    assert {Path(name).name for name in files()} | {"manifest.json", "adapter"} < set(events[:at])
    assert events[at + 1 :] == [tmp_path.name]


def test_leftovers_of_a_killed_process_are_swept_and_versions_are_not(tmp_path: Path) -> None:
    write_artifact(tmp_path / "v", files(), base_identity=IDENTITY)
    for name in (".w.123.partial", ".x.124.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_bytes(b"half")
    hours_ago = time.time() - 7200
    os.utime(tmp_path / ".w.123.partial", (hours_ago, hours_ago))
    sweep_partials(tmp_path)
    # The other one may be being written by somebody who shares the folder.
    assert sorted(p.name for p in tmp_path.iterdir()) == [".x.124.partial", "v"]
