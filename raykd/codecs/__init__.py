"""What writes numbers in fewer bytes before they cross a link, and reads them behind it: one file a codec, registered by being
there.
"""
