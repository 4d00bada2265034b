"""Which frame goes to which host."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from retally.procedures import Booking

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Sequence

    from retally.dispatch.simulator.farm import Share, Spot, Waiting

_MORE_CORES = 0.1  # share of the bookings that take twice the cores that the layer asks for
_ONE_GPU = 0.1  # share of those without GPUs that take one where the host has some idle
_LOCAL = 0.5  # share of the frames that run locally where their job has a local share
_GPU_MEM_KB = 1 << 20


def choose(
    draw: random.Random,
    frames: Sequence[Waiting],
    spots: Sequence[Spot],
    subscribed: Collection[tuple[str, str]],
    shares: Sequence[Share],
) -> list[Booking]:
    """A booking for each frame that fits somewhere by what was read a moment ago.

    Other dispatchers look at the same hosts, so some are refused. A host is taken only where the
    show subscribes to its allocation: in a managed show, anything else would be a drift that no
    recompute can mend.
    """
    left = {spot.host: spot for spot in spots}
    local = {share.job: share for share in shares}
    chosen = []
    for frame in frames:
        share = local.get(frame.job)
        if share and draw.random() < _LOCAL:
            chosen.append(_on_own_host(frame, share))
            continue
        fitting = [
            spot
            for spot in left.values()
            if (frame.show, spot.alloc) in subscribed and _fits(frame, spot)
        ]
        if not fitting:
            continue
        spot = draw.choice(fitting)
        booking = _on_farm(draw, frame, spot)
        chosen.append(booking)
        left[spot.host] = replace(
            spot,
            core_units=spot.core_units - booking.core_units,
            mem_kb=spot.mem_kb - booking.mem_kb,
            gpus=spot.gpus - booking.gpus,
            gpu_mem_kb=spot.gpu_mem_kb - booking.gpu_mem_kb,
        )
    return chosen


def _fits(frame: Waiting, spot: Spot) -> bool:
    return (
        spot.core_units >= max(frame.core_units, 1)
        and spot.mem_kb >= frame.mem_kb
        and spot.gpus >= frame.gpus
        and spot.gpu_mem_kb >= frame.gpu_mem_kb
    )


def _on_farm(draw: random.Random, frame: Waiting, spot: Spot) -> Booking:
    # a layer may ask for 0 or fewer cores: all that the host has, or all but so many
    cores = frame.core_units if frame.core_units > 0 else spot.core_units + frame.core_units
    cores = min(max(cores, 1), spot.core_units)
    if draw.random() < _MORE_CORES and 2 * cores <= spot.core_units:
        cores *= 2
    gpus, gpu_mem = frame.gpus, frame.gpu_mem_kb
    if not gpus and spot.gpus and spot.gpu_mem_kb >= _GPU_MEM_KB and draw.random() < _ONE_GPU:
        gpus, gpu_mem = 1, _GPU_MEM_KB
    return Booking(
        spot.host, frame.job, frame.layer, frame.frame, cores, frame.mem_kb, gpus, gpu_mem
    )


def _on_own_host(frame: Waiting, share: Share) -> Booking:
    cores = max(1, min(frame.core_units, share.core_units))
    memory = min(frame.mem_kb, share.mem_kb)
    return Booking(share.host, frame.job, frame.layer, frame.frame, cores, memory, local=True)
