"""Where a report comes from, without a secret in it."""

import json

import pytest

from tsguard import provenance
from tsguard.render import html
from tsguard.report import Report

SECRET = "hunter2-0a1b2c"


@pytest.mark.parametrize(
    "tree",
    [
        {"trackers": {"wandb": {"api_key": SECRET}}},
        {"model": {"args": {"hub_token": SECRET, "Password": SECRET}}},
        {"data": {"args": {"url": f"postgresql://reader:{SECRET}@host/base"}}},
        {"deep": [{"list": [{"client_secret": SECRET}]}]},
    ],
)
def test_secrets_in_settings_reach_neither_document_nor_page(tree):
    report = Report(provenance=provenance.gather(config=tree))
    assert SECRET not in report.to_json()
    assert SECRET not in html.page(report)
    assert "***" in json.dumps(report.provenance.config)


def test_what_is_no_secret_stays():
    tree = {
        "tokens": 512,
        "key": "load",
        "keys": ["a"],
        "token": "${HUB_TOKEN}",
        "url": "https://host:80/a@b",
        "n": None,
    }
    assert provenance.without_secrets(tree) == tree


def test_the_environment_is_not_kept(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.setattr("sys.argv", ["tsguard", "train", "run.yaml", "--set", f"trackers.wandb.api_key={SECRET}"])
    text = Report(provenance=provenance.gather()).to_json()
    assert SECRET not in text
    assert "trackers.wandb.api_key=***" in text


def test_a_module_is_known_by_its_package():
    assert provenance.command_line(["/venv/site-packages/pytest/__main__.py", "-q"]) == "pytest -q"
