"""Procedural phantoms: populations of subjects, their exactly labelled anatomy, and its images under named protocols."""
