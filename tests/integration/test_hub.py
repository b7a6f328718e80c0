"""Models from a repository of a hub, over https from a server on this machine."""

from pathlib import Path

import pytest
from https_site import Site, gives

import ecgbatch
from ecgbatch.models.weights.registry import Registry


def test_a_model_from_a_repository(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", site.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    settings = ecgbatch.Settings(model_dir=tmp_path / "models")
    shipped = Registry(settings.model_dir).find("xlstm-ecg:1.1.0")
    commit = "c" * 40
    for name in ("config.json", "model.safetensors"):
        file = shipped.weights_path.with_suffix(".json") if name == "config.json" else shipped.weights_path
        site.answers[f"/owner/name/resolve/{commit}/{name}"] = gives(file.read_bytes())
    scorer = ecgbatch.load_model(f"hf:owner/name@{commit}", settings=settings)
    assert scorer.model.fingerprint == shipped.fingerprint
    with pytest.raises(ecgbatch.EcgbatchError, match="404"):
        ecgbatch.load_model("hf:owner/name", settings=settings)
    site.answers[f"/owner/name/resolve/{commit}/config.json"] = gives(b"[]")
    with pytest.raises(ecgbatch.EcgbatchError, match=f"hf:owner/name@{commit}/config.json is no description"):
        ecgbatch.load_model(f"hf:owner/name@{commit}", settings=settings)
