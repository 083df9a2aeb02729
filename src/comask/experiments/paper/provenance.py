"""Where and when runs were made, in one sentence, from what their summaries say."""

from __future__ import annotations

from collections.abc import Sequence

from comask.experiments.results import Run


def provenance(runs: Sequence[Run]) -> str:
    """Return the machines, versions and dates of some runs, each kind of machine once, and what is to be known of their data."""
    sessions = [session for run in runs for session in run.summary.get("sessions", ())]
    kinds = dict.fromkeys(
        (
            str(session.get("device", "?")),
            *(str(session.get("environment", {}).get(key, "?")) for key in ("cores", "platform", "torch")),
        )
        for session in sessions
    )
    if not kinds:
        return ""
    machines = "; ".join(
        f"{device}, {cores} {'core' if cores == '1' else 'cores'}, {platform}, torch {torch}"
        for device, cores, platform, torch in kinds
    )
    days = sorted(str(session.get("started", "?"))[:10] for session in sessions)
    when = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    notes = dict.fromkeys(str(run.summary.get("data_note") or "").rstrip(".") for run in runs)
    data = "".join(f" Data: {note}." for note in notes if note)
    return f"Machine: {machines}. Run {when}.{data}"
