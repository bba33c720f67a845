"""Which folders the cases of a scenario are read from: what every machine that runs clients must see."""

from __future__ import annotations

import os
from pathlib import Path

from raykd.data.federation import client_site, proxy_site, repository_site
from raykd.data.pools import Pools
from raykd.data.remote import is_fetched
from raykd.scenario.schema import Scenario


def source_folders(scenario: Scenario, root: Path) -> list[Path]:
    """For every source that reads files the folder that holds them all, each once, absolute; none where all cases are made.

    Raises:
        DataError: a source cannot list its cases.
    """
    pools = Pools(scenario, root)
    sites = [client_site(scenario, client, root, pools) for client in scenario.members()]
    sites += [repository_site(scenario, root), *([proxy_site(scenario, root)] if scenario.proxy is not None else [])]
    folders: dict[Path, None] = {}
    for site in sites:
        keys = site.source.keys()
        files = [path.absolute() for key in keys for path in site.source.files(key) if not is_fetched(path)]
        if files:
            folders[Path(os.path.commonpath([path.parent for path in files]))] = None
    return list(folders)
