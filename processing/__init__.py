"""Recomputing captions and scores. Nothing here yet.

What belongs here: stages (`scores/`, `captions/`, `segments/`: one file each), the planner that decodes each clip
once for all of them, the engines that run chunks (local processes, a Ray cluster) and the papers' recipes.
"""
