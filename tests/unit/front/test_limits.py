"""Tests of the limits of Envoy, as the pages tell them."""

from __future__ import annotations

import pytest
from mnist37_front.envoy.configuration import overload_manager
from support.pages import ROOT


@pytest.mark.parametrize("page", ["front.md", "operations.md", "kubernetes-front.yaml"])
def test_envoy_takes_no_further_requests_from_the_heap_on_that_the_pages_name(page: str) -> None:
    manager = overload_manager()
    (heap,) = (
        monitor["typed_config"]["max_heap_size_bytes"]
        for monitor in manager["resource_monitors"]
        if monitor["name"].endswith("fixed_heap")
    )
    (threshold,) = (
        trigger["threshold"]["value"]
        for action in manager["actions"]
        if action["name"].endswith("stop_accepting_requests")
        for trigger in action["triggers"]
    )
    text = (ROOT / "docs" / page).read_text()
    assert f"from {heap * threshold / 2**30:g} GiB of" in text
