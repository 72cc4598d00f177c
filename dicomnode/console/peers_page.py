"""The peers that the node calls: where they are, what waits for them, and whether they answer."""

from starlette.responses import Response

from dicomnode.console.site import ConsoleSite, Visit


def peers(site: ConsoleSite, visit: Visit) -> Response:
    """Show the peers."""
    waiting = {one.name: one for one in site.now.found().destinations}
    rows = [
        {
            "number": number,
            "what": one.what,
            "address": str(one.reached),
            "waits": waiting.get(one.reached.name) if one.what.startswith("destination ") else None,
            "last": site.peers.last(number),
        }
        for number, one in enumerate(site.peers.known)
    ]
    return site.page(visit, "peers.html", rows=rows, callers=site.config.node.callers)


def ask(site: ConsoleSite, visit: Visit) -> Response:
    """Test one peer, and say what it answered."""
    found = site.peers.ask(visit.number(len(site.peers.known) - 1))
    site.note(visit, "console test of a peer", {"peer": found.what, "answered": "yes" if found.ok else "no"})
    return site.page(visit, "peer_tested.html", found=found)
