"""Taking runs to the tools of others: experiment trackers, MONAI, nnU-Net. All is read from the run directory alone."""
